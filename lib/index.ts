export type { EmptyRead, ResolvedConfig, Rule, StreamConfig } from './config';
export type { DeviceInfo, DeviceOptions, DeviceStats } from './device';
export { Device, listDevices, openDevice } from './device';
export type { ErrorCode, InfiniError, NonFiniteError } from './errors';
export type { AttendInput, AttendOptions, RetrieveInput, RetrieveOptions, SyncOptions } from './stream';
export { MemoryStream } from './stream';
export type { DType, Tensor } from './tensor';
