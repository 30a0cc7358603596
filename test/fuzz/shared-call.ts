import { DeviceTensor, type Tensor } from '../../lib';
import { bytesOf } from '../support/tensors';
import { classOf } from './arrays';
import { Violation } from './subject';
import { type AnyCall, METHODS, prepare, signalOf } from './valid-call';
import type { World } from './world';

/** A valid call whose tensors lie in device tensors and host buffers, and the misuse of them that must be seen. */
export function sharedCall(world: World, subject = world.subject()): void {
  const { rng, hostile } = world;
  const { dtype } = subject.stream.config;
  const { method, input, copies, outLength } = prepare(world, subject, rng.pick(METHODS));
  const isAsync = !method.endsWith('Sync');
  const tensors: DeviceTensor[] = [];
  const share = (data: Tensor): Tensor | DeviceTensor => {
    if (rng.uniform() < 0.5) {
      const tensor = world.safe.tensor([data.length], dtype, data);
      tensors.push(tensor);
      return hostile.note('device tensor', tensor);
    }
    const Class = classOf(dtype);
    const at = rng.int(0, 20) * Class.BYTES_PER_ELEMENT;
    const array = new Class(world.safe.hostBuffer(at + data.byteLength + rng.int(0, 9)), at, data.length);
    array.set(data);
    return hostile.note('host buffer', array);
  };
  for (const [name, data] of Object.entries(copies)) if (rng.uniform() < 0.7) input[name] = share(data);
  const options: { out?: Tensor | DeviceTensor; signal?: AbortSignal } = {};
  const before = new (classOf(dtype))(outLength).fill(7);
  if (rng.uniform() < 0.7) options.out = share(before);
  if (isAsync && rng.uniform() < 0.2) options.signal = signalOf(world);
  hostile.notes.push(`shared ${method}`);

  const slot = subject.slot();
  const numbersOf = (result: unknown, then: (numbers: Tensor) => void) => {
    if (!(result instanceof DeviceTensor)) return then((result as Tensor).slice());
    world.follow(
      'read',
      () => result.read(),
      (read) => then(read as Tensor),
      (code, error) => {
        throw new Violation(`a result could not be read: ${code}`, { cause: error });
      },
    );
  };
  const accept = (result: unknown): void => {
    if (options.out && result !== options.out) throw new Violation('another result than out');
    // The twin repeats now, in order; a device tensor's numbers come later.
    slot(() => {
      const wanted = subject.repeat(copies);
      numbersOf(result, (numbers) => {
        if (wanted && !bytesOf(numbers).equals(bytesOf(wanted)))
          throw new Violation('a shared result differs from its twin');
      });
    });
  };
  const refuse = (code: string, error: unknown): void => {
    const nonFinite = code === 'ERR_NON_FINITE';
    slot(() => nonFinite && subject.agreeOnRefusal(copies, error as { code?: string }));
    const excused =
      nonFinite ||
      (code === 'ERR_CLOSED' && subject.closed) ||
      (code === 'ERR_BUSY' && !isAsync && subject.pending > 0) ||
      (code === 'ABORT_ERR' && options.signal?.aborted);
    if (!excused) throw new Violation(`a valid ${method} failed`, { cause: error });
    if (!options.out) return;
    numbersOf(options.out, (numbers) => {
      if (!bytesOf(numbers).equals(bytesOf(before))) throw new Violation(`a failed ${method} wrote to out`);
    });
  };
  const call = () => (subject.stream[method] as AnyCall).call(subject.stream, input, options);
  if (!isAsync) {
    let result: unknown;
    try {
      result = call();
    } catch (error) {
      refuse(world.judge(method, error), error);
      return;
    }
    world.count('ok');
    accept(result);
    return;
  }
  const certain = !options.signal && !subject.closed;
  const end = subject.begin(certain);
  const over =
    <A extends unknown[]>(then: (...args: A) => void) =>
    (...args: A) => {
      then(...args);
      end();
      if (options.out instanceof DeviceTensor) return; // being read
      for (const tensor of tensors) if (rng.uniform() < 0.5) tensor.close(); // must be free, and say so
    };
  world.follow(method, call, over(accept), over(refuse));
  if (!certain) return;
  // Pending, for as long as this turn lasts.
  for (const tensor of tensors) {
    const numbers = new (classOf(dtype))(tensor.byteLength / before.BYTES_PER_ELEMENT);
    const misuse = rng.pick([
      () => tensor.write(numbers),
      () => tensor.close(),
      () => tensor[Symbol.dispose](),
    ]);
    if (world.try('misuse', misuse)) throw new Violation('a leased tensor was written or closed');
  }
  if (!options.out) return;
  const again = () => (subject.stream[method] as AnyCall).call(subject.stream, copies, { out: options.out });
  const succeeded = () => {
    throw new Violation('a leased out was the out of another call');
  };
  world.follow(method, again, succeeded, () => {});
}
