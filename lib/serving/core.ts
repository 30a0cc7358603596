import { reasonOf } from '../abort';
import { freezeConfig } from '../config';
import { failed } from '../diagnostics';
import { abortError, fail } from '../errors';
import { type NativeConfig, type NativeDevice, native } from '../native';
import { checkShapes } from '../operands';
import type { Tensor } from '../types';
import { watchersOf } from '../watchers';
import { Member } from './member';
import type { Limits } from './options';
import { Queue } from './queue';
import { type Operation, Request, readAsked } from './request';
import { Steps } from './step';
import { Tiers } from './tiers';
import { Turns } from './turns';

/** What a scheduler holds and has done. */
export interface SchedulerStats {
  /** Open streams. Of them, those whose state is on the device, and in host memory; empty ones may be nowhere. */
  streams: number;
  streamsOnDevice: number;
  streamsOnHost: number;
  /** Bytes of those states, and of the states that long requests at work would go back to (in host memory). */
  deviceBytes: number;
  hostBytes: number;
  savedBytes: number;
  /** Requests that wait to be queued, that are queued, and that are at work. */
  outside: number;
  queued: number;
  running: number;
  /** Bytes of the inputs of all of them. */
  queuedBytes: number;
  /** Ever done: steps (what went to the device together), tokens appended by requests that succeeded. */
  steps: number;
  tokens: number;
  /** Streams that left the device, and that came back. */
  swapsOut: number;
  swapsIn: number;
}

/** A scheduler without its public face. */
export class SchedulerCore {
  closed = false;
  readonly #members = new Set<Member>();
  /** Of all open streams. */
  #bytes = 0;
  /** Requests that have not settled, and who waits for the last of them. */
  #unsettled = 0;
  #drained: (() => void)[] = [];
  readonly #queue: Queue;
  readonly tiers: Tiers;
  readonly #steps: Steps;
  readonly #onCpu: boolean;
  readonly #onDeviceClosed = () => this.close();

  constructor(
    readonly handle: NativeDevice,
    readonly device: string,
    readonly limits: Limits,
  ) {
    this.tiers = new Tiers(handle, limits);
    this.#queue = new Queue(limits, (request) => this.#admitted(request));
    const turns = new Turns<Member>(limits.maxBatchTokens);
    this.#onCpu = native.deviceInfo(handle).backend === 'cpu';
    this.#steps = new Steps(turns, this.tiers, this.#queue, this.#onCpu, (request) => this.#settled(request));
    watchersOf(handle).add(this.#onDeviceClosed);
  }

  open(given: NativeConfig): Member {
    this.checkOpen();
    const [config, bytes] = native.resolve(this.handle, given);
    const { maxStreams, deviceBytes, hostBytes } = this.limits;
    if (this.#members.size >= maxStreams)
      throw fail(
        'ERR_BUSY',
        `Expected fewer than maxStreams (${maxStreams}) open streams but there are so many`,
      );
    if (bytes > deviceBytes || this.#bytes + bytes > deviceBytes + hostBytes) {
      throw fail(
        'ERR_OUT_OF_MEMORY',
        `Expected room for a stream of ${bytes} bytes but of deviceBytes (${deviceBytes}) and hostBytes (${hostBytes}) ` +
          `${this.#bytes} are promised to open streams`,
      );
    }
    const member = new Member(this.device, given, freezeConfig(config), bytes);
    this.#members.add(member);
    this.#bytes += bytes;
    return member;
  }

  ask(member: Member, operation: Operation, input: unknown, options: unknown): Promise<Tensor> {
    try {
      return this.#ask(member, operation, input, options);
    } catch (error) {
      failed(this.device, operation, error);
      return Promise.reject(error);
    }
  }

  #ask(member: Member, operation: Operation, input: unknown, options: unknown): Promise<Tensor> {
    this.checkMember(member);
    const asked = readAsked(member, operation, input, options);
    this.checkMember(member); // a getter may have closed it
    this.#queue.check(asked.bytes, member);
    const request = new Request(member, operation, asked);
    request.watch((error) => this.#steps.cut(request, error));
    try {
      // The signal may have run user code.
      this.checkMember(member);
      this.#queue.check(asked.bytes, member);
      checkShapes(asked.operands, member, asked.tokens);
      if (request.aborted) throw abortError(reasonOf(asked.signal));
      if (asked.transfer) request.keep(true, this.handle, this.#onCpu);
    } catch (error) {
      request.fail(error);
      failed(this.device, operation, error);
      return request.promise;
    }
    this.#unsettled++;
    this.#queue.enter(request);
    try {
      if (request.borrows && !request.ended) request.keep(false, this.handle, this.#onCpu);
    } catch (error) {
      this.#steps.cut(request, error);
    }
    return request.promise;
  }

  /** Its requests are refused, those at work are cut off. */
  closeMember(member: Member): void {
    if (member.closed) return;
    member.closed = true;
    const { outside } = member;
    const error = fail('ERR_CLOSED', 'The stream was closed before the request had settled');
    for (const request of [...member.requests, ...(outside ? [outside] : [])].reverse()) {
      this.#steps.cut(request, error);
    }
    this.tiers.release(member);
    this.tiers.changed();
    this.#members.delete(member);
    this.#bytes -= member.bytes;
  }

  /** Nobody has it any more. */
  forget(member: Member): void {
    member.forgotten = true;
    if (member.requests.length === 0 && !member.outside) this.closeMember(member);
  }

  drain(): Promise<void> {
    if (this.#unsettled === 0) return Promise.resolve();
    return new Promise((resolve) => this.#drained.push(resolve));
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    watchersOf(this.handle).delete(this.#onDeviceClosed);
    for (const member of [...this.#members]) this.closeMember(member);
  }

  stats(): SchedulerStats {
    const tiers = this.tiers;
    let streamsOnHost = 0;
    for (const { image } of this.#members) if (image) streamsOnHost++;
    return {
      streams: this.#members.size,
      streamsOnDevice: tiers.onDevice,
      streamsOnHost,
      deviceBytes: tiers.deviceBytes,
      hostBytes: tiers.hostBytes,
      savedBytes: tiers.savedBytes,
      outside: this.#queue.outside.size,
      queued: this.#queue.waiting,
      running: this.#steps.running,
      queuedBytes: this.#queue.bytes,
      steps: this.#steps.steps,
      tokens: this.#steps.tokens,
      swapsOut: tiers.swapsOut,
      swapsIn: tiers.swapsIn,
    };
  }

  #admitted(request: Request): void {
    const { member } = request;
    member.requests.push(request);
    if (member.front === request) this.#steps.first(request);
  }

  #settled({ member }: Request): void {
    if (member.forgotten) this.forget(member);
    if (--this.#unsettled > 0) return;
    const drained = this.#drained;
    this.#drained = [];
    for (const resolve of drained) resolve();
  }

  checkOpen(): void {
    if (this.closed) throw fail('ERR_CLOSED', 'Expected an open scheduler but it is closed');
  }

  checkMember(member: Member): void {
    this.checkOpen();
    if (member.closed) throw fail('ERR_CLOSED', 'Expected an open stream but it is closed');
  }
}
