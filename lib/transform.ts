import { ReadableStream, WritableStream } from 'node:stream/web';
import type { AttendInput, AttendOptions } from './calls';
import type { Tensor } from './types';

/** What `pipeThrough` takes: inputs of attend in, their outputs out. */
export interface AttendTransform {
  readonly readable: ReadableStream<Tensor>;
  readonly writable: WritableStream<AttendInput>;
}

type Attend = (input: AttendInput, options: AttendOptions) => Promise<Tensor>;

/**
 * Not the platform's TransformStream: that one lets a pending call finish before it looks at an abort, and this one
 * cuts it off.
 */
export function makeTransform(attend: Attend): AttendTransform {
  const stop = new AbortController();
  let input: WritableStreamDefaultController;
  let output: ReadableStreamDefaultController<Tensor>;
  let wanted: () => void = () => {};

  const readable = new ReadableStream<Tensor>({
    start(controller) {
      output = controller;
    },
    pull() {
      wanted();
    },
    cancel(reason) {
      wanted();
      stop.abort(reason);
      input.error(reason);
    },
  });

  const room = async () => {
    while (!stop.signal.aborted && (output.desiredSize ?? 0) <= 0) {
      await new Promise<void>((resolve) => {
        wanted = resolve;
      });
    }
  };

  const writable = new WritableStream<AttendInput>({
    start(controller) {
      const { signal } = controller as typeof controller & { signal: AbortSignal };
      signal.addEventListener('abort', () => {
        wanted();
        stop.abort(signal.reason);
      });
      input = controller;
    },
    async write(chunk) {
      try {
        await room();
        stop.signal.throwIfAborted();
        output.enqueue(await attend(chunk, { signal: stop.signal }));
      } catch (error) {
        if (!stop.signal.aborted) output.error(error);
        throw error;
      }
    },
    close() {
      output.close();
    },
    abort(reason) {
      output.error(reason);
    },
  });
  return { readable, writable };
}
