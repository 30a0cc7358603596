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
<<<<<<< HEAD
  Recorder,
  Session,
  saveSession,
  saveStream,
=======
  ScheduledStream,
  Session,
  StreamScheduler,
>>>>>>> w-sched-1430
} from './index.js';
