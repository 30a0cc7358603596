export type { BatchEntry } from './attend-batch';
export { Batch } from './batch';
export type * from './calls';
export { Device, listDevices, openDevice } from './device';
export { DeviceTensor } from './device-tensor';
export type { AbsorbEvent, AttendEvent, ErrorEvent, SwapEvent } from './diagnostics';
export type { ErrorCode, InfiniError, NonFiniteError } from './errors';
export type { ModelConfig } from './model/config';
export type { FeedOptions, FeedProgress } from './model/feed';
export type { Generated, GeneratedToken, Generation } from './model/generate';
export type { ModelInput } from './model/input';
export { type FeedEntry, type LoadModelOptions, loadModel, Model } from './model/model';
export type { GenerateOptions } from './model/options';
export { Session } from './model/session';
export type { SchedulerStats } from './serving/core';
export type { SchedulerOptions } from './serving/options';
export {
  type ScheduledAttendInput,
  type ScheduledOptions,
  type ScheduledRetrieveInput,
  ScheduledStream,
} from './serving/scheduled-stream';
export { StreamScheduler } from './serving/scheduler';
export { loadSession, loadStream, saveSession, saveStream } from './snapshot/file';
export { MemoryStream } from './stream';
export type { AttendTransform } from './transform';
export { applyTransition } from './transition/apply';
export { composeTransitions } from './transition/compose';
export { mergeStreams } from './transition/merge';
export { type AbsorbInput, type AbsorbOptions, Recorder, type RecorderOptions } from './transition/recorder';
export type { Transition } from './transition/transition';
export type * from './types';
