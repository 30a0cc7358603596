export { Device, listDevices, openDevice } from './device';
export type { ErrorCode, InfiniError, NonFiniteError } from './errors';
export { MemoryStream } from './stream';
export type * from './types';
