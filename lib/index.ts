export type { BatchEntry } from './attend-batch';
export { Batch } from './batch';
export type * from './calls';
export { Device, listDevices, openDevice } from './device';
export { DeviceTensor } from './device-tensor';
export type { ErrorCode, InfiniError, NonFiniteError } from './errors';
export { MemoryStream } from './stream';
export type * from './types';
