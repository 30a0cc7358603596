// The same module for `import`: it re-exports the one for `require`, so that there is one copy of its state.

export type * from './index.js';
export {
  applyTransition,
  Batch,
  composeTransitions,
  Device,
  DeviceTensor,
  listDevices,
  loadModel,
  loadSession,
  loadStream,
  MemoryStream,
  Model,
  mergeStreams,
  openDevice,
  Recorder,
  ScheduledStream,
  Session,
  StreamScheduler,
  saveSession,
  saveStream,
} from './index.js';
