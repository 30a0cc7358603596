/** An error of the service itself: a code, and the HTTP status that goes with it. */
export class ServiceError extends Error {
  constructor(
    readonly code: string,
    readonly statusCode: number,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

export const unavailable = (code: string, message: string, cause?: unknown) =>
  new ServiceError(code, 503, message, { cause });

/** The status of what infini-stream throws. */
const statusOf: Record<string, number> = {
  ERR_INVALID_ARG_TYPE: 400,
  ERR_OUT_OF_RANGE: 400,
  ERR_NON_FINITE: 422,
  ERR_BUSY: 429,
  ERR_CLOSED: 410,
  ERR_OUT_OF_MEMORY: 503,
  ERR_DEVICE: 503,
  ABORT_ERR: 503, // the service stops
};

/** What a client is told: nothing of errors that it has not made. */
export function answerOf(error: unknown): { status: number; body: { code: string; message: string } } {
  const { code = '', message = '', statusCode } = error as Partial<ServiceError>;
  const status = statusCode ?? statusOf[code] ?? 500;
  if (status === 500) return { status, body: { code: 'ERR_INTERNAL', message: 'The service has failed' } };
  return { status, body: { code, message } };
}
