// The same module for `import`: it re-exports the one for `require`, so that there is one copy of its state.

export type * from './index.js';
export {
  Batch,
  Device,
  DeviceTensor,
  listDevices,
  loadModel,
  MemoryStream,
  Model,
  openDevice,
  ScheduledStream,
  Session,
  StreamScheduler,
} from './index.js';
