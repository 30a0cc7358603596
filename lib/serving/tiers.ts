import { begin, failed, swapped } from '../diagnostics';
import { fail, type InfiniError } from '../errors';
import { type NativeDevice, type NativeStream, native } from '../native';
import { makeFrom } from '../snapshot/stream';
import { StreamCore } from '../stream-core';
import type { Member } from './member';
import type { Limits } from './options';

/**
 * Where the states of streams are: on the device, or in host memory. Who has the device and has not used it for longest
 * goes first when there is no room. One exchange at a time.
 */
export class Tiers {
  /** Bytes of states on the device, in host memory, and of those that running requests may have to go back to. */
  deviceBytes = 0;
  hostBytes = 0;
  savedBytes = 0;
  swapsOut = 0;
  swapsIn = 0;
  /** Whose turn comes later has a larger number. */
  nextOrder = 0;
  /** On the device, least recently used first. */
  readonly #residents = new Set<Member>();
  #exchanges: Promise<void> = Promise.resolve();
  #pending = 0;
  #wake = () => {};

  constructor(
    readonly handle: NativeDevice,
    readonly limits: Limits,
  ) {}

  get onDevice(): number {
    return this.#residents.size;
  }

  /** Somebody waits for room on the device. */
  get exchanging(): boolean {
    return this.#pending > 0;
  }

  /** It has the device, without waiting. */
  place(member: Member): boolean {
    if (member.moving) return false;
    if (!member.core) {
      if (member.image || this.#pending > 0 || this.deviceBytes + member.bytes > this.limits.deviceBytes)
        return false;
      try {
        this.#put(member, native.createStream(this.handle, member.given));
      } catch {
        return false; // bring() makes room, or says what is wrong
      }
    }
    this.#residents.delete(member);
    this.#residents.add(member);
    return true;
  }

  /** Brings it to the device, however long that takes. Rejects when it cannot be done; the state stays where it is. */
  bring(member: Member): Promise<void> {
    return this.#exchange(member, () => this.#bring(member));
  }

  /** When those before it are over. */
  #exchange(member: Member, work: () => Promise<void>): Promise<void> {
    this.#pending++;
    const done = this.#exchanges.then(work).finally(() => this.#pending--);
    this.#exchanges = done.catch((error) => failed(member.device, 'swap', error));
    return done;
  }

  /** A stream may have become idle, or is gone: a bring() that waits looks again. */
  changed(): void {
    this.#wake();
  }

  /** A copy of the state, of nobody at work; undefined of an empty stream. */
  async copy(member: Member): Promise<Uint8Array | undefined> {
    while (member.moving) await this.#exchanges; // its native stream is about to go
    if (member.image) return member.image;
    member.snapshots++;
    try {
      return await imageOf(member);
    } finally {
      member.snapshots--;
      this.changed();
    }
  }

  /** A state from elsewhere: in host memory until its first use, or on the device if there is room there alone. */
  async adopt(member: Member, image: Uint8Array): Promise<void> {
    member.image = image;
    this.hostBytes += image.byteLength;
    if (this.hostBytes <= this.limits.hostBytes) return;
    await this.#exchange(member, async () => {
      if (this.deviceBytes + member.bytes <= this.limits.deviceBytes) await this.#move(member);
    });
    if (member.core || member.closed) return;
    this.release(member);
    throw this.#full(member.bytes);
  }

  /** Copies the state to host memory before what may fail halfway. */
  async save(member: Member): Promise<{ image: Uint8Array | undefined }> {
    const image = await imageOf(member);
    this.savedBytes += image?.byteLength ?? 0;
    return { image };
  }

  forget({ image }: { image: Uint8Array | undefined }): void {
    this.savedBytes -= image?.byteLength ?? 0;
  }

  /** Goes back to a saved state, which is in host memory until the next use. */
  restore(member: Member, { image }: { image: Uint8Array | undefined }): void {
    this.release(member);
    member.image = image;
    this.hostBytes += image?.byteLength ?? 0;
  }

  /** Lets go of the state. */
  release(member: Member): void {
    this.hostBytes -= member.image?.byteLength ?? 0;
    member.image = undefined;
    const { core } = member;
    if (!core) return;
    member.core = undefined;
    this.#residents.delete(member);
    this.deviceBytes -= member.bytes;
    native.closeStream(core.native);
    this.changed();
  }

  async #bring(member: Member): Promise<void> {
    const wanted = () => !member.closed && !member.core && member.front !== undefined;
    while (wanted() && this.deviceBytes + member.bytes > this.limits.deviceBytes) {
      const leaving = this.#leaving(member);
      if (leaving) await this.#swapOut(leaving);
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    while (wanted()) {
      try {
        await this.#move(member);
      } catch (error) {
        if ((error as InfiniError).code !== 'ERR_OUT_OF_MEMORY') throw error;
        const leaving = this.#leaving(member);
        if (leaving) await this.#swapOut(leaving);
        else if (this.#residents.size === 0) throw error;
        else await new Promise<void>((resolve) => (this.#wake = resolve)); // they are at work
      }
    }
  }

  /** To the device, which has room for it: nobody else takes any while there are exchanges. */
  async #move(member: Member): Promise<void> {
    const { image, stateTokens: tokens, given, device } = member;
    const began = begin();
    if (!image) {
      this.#put(member, native.createStream(this.handle, given));
      return;
    }
    const stream = await makeFrom(this.handle, { given, tokens, image });
    if (member.closed) {
      native.closeStream(stream);
      return;
    }
    this.#put(member, stream);
    member.image = undefined;
    this.hostBytes -= image.byteLength;
    this.swapsIn++;
    swapped(device, began, 'in', image.byteLength, tokens);
  }

  #put(member: Member, stream: NativeStream): void {
    const { device, stateTokens, front } = member;
    member.core = new StreamCore(stream, device, this.handle, stateTokens);
    if (front) front.fresh = true;
    this.#residents.add(member);
    this.deviceBytes += member.bytes;
  }

  /** And from there. */
  async #swapOut(member: Member): Promise<void> {
    const began = begin();
    const { core } = member;
    member.moving = true;
    try {
      const image = await imageOf(member); // behind the pieces that are at work
      if (member.core !== core) return; // it was closed, or a request failed and went back
      this.restore(member, { image });
      if (member.front) member.front.order = this.nextOrder++;
      if (!image) return;
      this.swapsOut++;
      swapped(member.device, began, 'out', image.byteLength, member.stateTokens);
    } catch (error) {
      if (member.core === core) throw error;
    } finally {
      member.moving = false;
    }
  }

  /**
   * Who makes room for another one: who is idle; or else whose request has not begun and is behind; or else whose request
   * has had a piece done, and goes on later. Undefined while there is nobody. Throws when host memory has no room.
   */
  #leaving(next: Member): Member | undefined {
    const order = next.front?.order ?? 0;
    const idle: Member[] = [];
    const behind: Member[] = [];
    const atWork: Member[] = [];
    for (const member of this.#residents) {
      const { front, moving } = member;
      if (moving || member.snapshots > 0 || front?.preparing || front?.failure) continue;
      if (!front) idle.push(member);
      else if (!front.started && front.order > order) behind.push(member);
      else if (front.started && !front.fresh && front.sent < front.tokens) atWork.push(member);
    }
    behind.sort((a, b) => (b.front?.order ?? 0) - (a.front?.order ?? 0));
    const candidates = [...idle, ...behind, ...atWork];
    const left = this.limits.hostBytes - this.hostBytes + (next.image?.byteLength ?? 0);
    // What is at work may fill its open segment until it leaves.
    const most = (member: Member) =>
      member.front?.started ? member.bytes : member.imageBytes(member.stateTokens);
    const leaving = candidates.find((member) => most(member) <= left);
    if (!leaving && idle.length > 0) throw this.#full(next.bytes);
    return leaving;
  }

  #full(bytes: number): InfiniError {
    const { deviceBytes, hostBytes } = this.limits;
    return fail(
      'ERR_OUT_OF_MEMORY',
      `Expected room for a stream of ${bytes} bytes but ${this.deviceBytes} of deviceBytes (${deviceBytes}) and ` +
        `${this.hostBytes} of hostBytes (${hostBytes}) are taken`,
    );
  }
}

/** The state as bytes, after all calls before; undefined for an empty stream. */
function imageOf(member: Member): Promise<Uint8Array | undefined> {
  const { core, front, stateTokens } = member;
  if (!core || (stateTokens === 0 && !front?.pieces.size)) return Promise.resolve(undefined);
  return new Promise((resolve, reject) => {
    native.snapshot(core.native, core.mostOpen, (error, tokens) => {
      core.end();
      try {
        if (error) throw error;
        const image = tokens === 0 ? undefined : newImage(member.imageBytes(tokens));
        if (image) native.take(image);
        resolve(image);
      } catch (failure) {
        reject(failure);
      }
    });
    core.begin();
  });
}

function newImage(bytes: number): Uint8Array {
  try {
    return new Uint8Array(bytes);
  } catch {
    throw fail('ERR_OUT_OF_MEMORY', `Expected ${bytes} bytes for a stream's state but the allocation failed`);
  }
}
