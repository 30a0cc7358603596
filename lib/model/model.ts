import path from 'node:path';
import { checkArray, readRecord } from '../config';
import { type Device, handleOf, openDevice } from '../device';
import { expected, fail } from '../errors';
import { type NativeDevice, type NativeModel, native } from '../native';
import { copyBytes } from '../snapshot/bytes';
import { restoreSession } from '../snapshot/session';
import type { DeviceOptions, StreamConfig } from '../types';
import { tell } from '../watchers';
import type { ModelConfig } from './config';
import { type FeedOptions, feed } from './feed';
import { openModelFiles } from './files';
import { type Generated, generateTogether, Transcript } from './generate';
import { checkTokens, type ModelInput, readInput } from './input';
import { type GenerateOptions, readFeedOptions, readGenerateOptions } from './options';
import { adoptSession, type Session, sessionCoreOf } from './session';
import { checkModelOpen, inTurn, type ModelCore, SessionCore, telling } from './session-core';
import { Tokenizer } from './tokenizer';
import { findWeights, readGates } from './weights';

export interface LoadModelOptions extends DeviceOptions {
  /** A device of yours, which stays open when the model is closed, or what `openDevice` takes. Default: 'auto'. */
  device?: Device | 'auto' | 'cpu' | 'cuda' | `cuda:${number}`;
}

/** Sessions of one model and what each is to take. */
export interface FeedEntry {
  session: Session;
  input: ModelInput;
}

const mostSessions = 4096;

// Only this file makes models: `new Model()` by anyone else has no key.
const key = Symbol('infini-stream model');
/** For lib/snapshot/file.ts; undefined for everything else than a model. */
export let coreOfModel: (model: unknown) => ModelCore | undefined;
let adoptModel: (
  core: ModelCore,
  device: Device,
  owned: boolean,
  gates: readonly (readonly number[])[],
) => Model;

/** A trained model on a device, made by {@link loadModel}. */
export class Model {
  readonly #core: ModelCore;
  readonly #owned: boolean;
  /** Where it is. */
  readonly device: Device;
  /** What config.json says; frozen. */
  readonly config: ModelConfig;
  /** beta of eq. (10), by layer and query head; frozen. The output uses sigmoid(beta). */
  readonly gates: readonly (readonly number[])[];

  static {
    adoptModel = (...parts) => new Model(key, ...parts);
    coreOfModel = (model) =>
      typeof model === 'object' && model !== null && #core in model ? model.#core : undefined;
  }

  private constructor(
    secret: symbol,
    core: ModelCore,
    device: Device,
    owned: boolean,
    gates: readonly (readonly number[])[],
  ) {
    if (secret !== key) throw fail('ERR_INVALID_ARG_TYPE', 'Expected Model to be made by loadModel()');
    this.#core = core;
    this.#owned = owned;
    this.device = device;
    this.config = core.config;
    this.gates = gates;
  }

  static #of(receiver: unknown, method: string): ModelCore {
    const core = coreOfModel(receiver);
    if (core) return core;
    throw fail('ERR_INVALID_ARG_TYPE', `Expected a Model as the receiver of ${method}`);
  }

  /** Bytes of the weights on the device. @throws ERR_CLOSED. */
  get byteLength(): number {
    return native.weightBytes(Model.#of(this, 'byteLength').native);
  }

  /** Whether {@link close} was called, on it or on its device. */
  get closed(): boolean {
    return native.modelClosed(Model.#of(this, 'closed').native);
  }

  /**
   * An empty session: one stream per layer, allocated now.
   * @throws ERR_CLOSED, ERR_OUT_OF_MEMORY, ERR_DEVICE.
   */
  createSession(): Session {
    const core = Model.#of(this, 'createSession');
    checkModelOpen(core);
    return adoptSession(SessionCore.empty(core));
  }

  /**
   * A session in the state that `session.snapshot()` gave, of this model or another copy of it: the same config.json and gates
   * are checked, the other weights are not in the snapshot. The bytes are copied before this returns.
   *
   * Rejects with ERR_CLOSED, ERR_INVALID_ARG_TYPE (no Uint8Array), ERR_SNAPSHOT, which says what is wrong with the bytes,
   * ERR_OUT_OF_MEMORY, ERR_DEVICE.
   */
  async restoreSession(bytes: Uint8Array): Promise<Session> {
    const core = Model.#of(this, 'restoreSession');
    checkModelOpen(core);
    return adoptSession(await restoreSession(core, copyBytes(bytes)));
  }

  /**
   * Feeds sessions side by side, as `session.feed` does: one batch through the dense layers. All or nothing: when it
   * fails every session is as it was. 1 to 4096 distinct open sessions of this model.
   *
   * Rejects as `session.feed`, and with ERR_BUSY when a session occurs twice.
   */
  async feedAll(entries: readonly FeedEntry[], options?: FeedOptions): Promise<void> {
    const core = Model.#of(this, 'feedAll');
    await telling(core, 'feed', () => feedAll(core, entries, options));
  }

  /**
   * Generates with sessions side by side, as `session.generate` does, with the same options for all: one batch through
   * the dense layers and, while all go on, one prepared batch through the memories. With a temperature session i draws
   * with the seed + i.
   *
   * Rejects as `session.generate`, and with ERR_BUSY when a session occurs twice; sessions then keep the tokens of the
   * steps before.
   */
  async generateAll(sessions: readonly Session[], options: GenerateOptions): Promise<Generated[]> {
    const core = Model.#of(this, 'generateAll');
    return telling(core, 'generate', () => generateAll(core, sessions, options));
  }

  /** A text's tokens. @throws ERR_INVALID_ARG_TYPE, also when the model has no tokenizer.json. */
  encode(text: string): Int32Array {
    return Int32Array.from(tokenizerOf(Model.#of(this, 'encode'), 'encode').encode(text));
  }

  /**
   * The tokens' text.
   * @throws ERR_INVALID_ARG_TYPE, also when the model has no tokenizer.json; ERR_OUT_OF_RANGE.
   */
  decode(tokens: Int32Array | Uint32Array | readonly number[]): string {
    const { vocabulary } = Model.#of(this, 'decode');
    const ids = checkTokens(tokens, vocabulary, 'tokens');
    return tokenizerOf({ vocabulary }, 'decode').decode(Array.from(ids));
  }

  /** Frees the weights, and closes the device if `loadModel` opened it, and with it all sessions. Idempotent. */
  close(): void {
    const core = Model.#of(this, 'close');
    native.closeModel(core.native);
    tell(core.watchers);
    if (this.#owned) this.device.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

async function feedAll(core: ModelCore, entries: readonly FeedEntry[], options?: FeedOptions): Promise<void> {
  const checked = readFeedOptions(options);
  const length = checkArray(entries, 'entries', 1, mostSessions);
  let total: number | undefined = 0;
  const given = Array.from({ length }, (_, i) =>
    readRecord((entries as readonly unknown[])[i], `entries[${i}]`, new Set(['session', 'input'])),
  );
  const sessions = checkSessions(
    core,
    given.map(({ session }) => session),
    (i) => `entries[${i}].session`,
  );
  const feedings = sessions.map((session, i) => {
    const read = readInput(given[i]?.input, core.vocabulary, `entries[${i}].input`);
    total = total === undefined || read.total === undefined ? undefined : total + read.total;
    return { session, pieces: read.pieces };
  });
  await inTurn(sessions, checked.signal, (interruption) => feed(feedings, checked, total, interruption));
}

async function generateAll(
  core: ModelCore,
  sessions: readonly Session[],
  options: GenerateOptions,
): Promise<Generated[]> {
  const plan = readGenerateOptions(options, core.vocabulary);
  const length = checkArray(sessions, 'sessions', 1, mostSessions);
  const given = Array.from({ length }, (_, i) => (sessions as readonly unknown[])[i]);
  const cores = checkSessions(core, given, (i) => `sessions[${i}]`);
  const transcripts = cores.map((session, i) => new Transcript(session, plan(i)));
  await inTurn(cores, plan(0).signal, () => generateTogether(transcripts));
  return transcripts.map((transcript) => transcript.result());
}

function tokenizerOf({ vocabulary }: Pick<ModelCore, 'vocabulary'>, method: string): Tokenizer {
  if (vocabulary.tokenizer) return vocabulary.tokenizer;
  throw fail('ERR_INVALID_ARG_TYPE', `Expected a model with a tokenizer.json for ${method}()`);
}

function checkSessions(
  model: ModelCore,
  given: readonly unknown[],
  name: (i: number) => string,
): SessionCore[] {
  const seen = new Set<SessionCore>();
  return given.map((session, i) => {
    const core = sessionCoreOf(session);
    if (!core) throw expected('ERR_INVALID_ARG_TYPE', name(i), 'a Session', session);
    if (core.model !== model)
      throw fail('ERR_INVALID_ARG_TYPE', `Expected a session of this model for "${name(i)}"`);
    core.checkOpen();
    if (seen.has(core)) throw fail('ERR_BUSY', `Expected distinct sessions but "${name(i)}" occurs twice`);
    seen.add(core);
    return core;
  });
}

/**
 * Loads a model from a directory: `config.json` (Llama's keys and `infini: { segment_length, rule, empty_read }`),
 * `model.safetensors` (or Hugging Face's index of several) and, for texts, `tokenizer.json`. Weights have the names and
 * shapes of Hugging Face's Llama and `model.layers.*.self_attn.gate` [heads] (beta of eq. (10) of arXiv 2404.07143), in
 * float32, bfloat16 or float16; they stay as they are stored, activations are float32.
 *
 * Rejects with ERR_MODEL, which says what is wrong in which file; ERR_INVALID_ARG_TYPE, ERR_OUT_OF_RANGE,
 * ERR_NO_DEVICE, ERR_CLOSED (a closed device), ERR_OUT_OF_MEMORY, ERR_DEVICE.
 */
export async function loadModel(directory: string, options: LoadModelOptions = {}): Promise<Model> {
  if (typeof directory !== 'string' || directory.includes('\0'))
    throw expected('ERR_INVALID_ARG_TYPE', 'directory', 'a path', directory);
  const { device: place = 'auto', threads } = readRecord(options, 'options', new Set(['device', 'threads']));
  const given = handleOf(place);
  if (given && threads !== undefined)
    throw fail('ERR_INVALID_ARG_TYPE', 'Expected no "options.threads" with an open device');
  const device = given
    ? (place as Device)
    : openDevice(place as 'auto', threads === undefined ? {} : { threads: threads as number });
  try {
    const handle = given ?? (handleOf(device) as NativeDevice);
    return await load(path.resolve(directory), device, handle, !given);
  } catch (error) {
    if (!given) device.close();
    throw error;
  }
}

async function load(directory: string, device: Device, handle: NativeDevice, owned: boolean): Promise<Model> {
  const files = await openModelFiles(directory);
  try {
    const { config } = files;
    const { weights, gates: stored, gated } = findWeights(config, files.tensors);
    const gates = await readGates(stored, files.handles);
    const tokenizer =
      files.tokenizer === undefined ? undefined : Tokenizer.parse(files.tokenizer, 'tokenizer.json');
    const layers = gates.map((gate) => streamConfig(config, gate));
    // Refused here is what streams refuse, before the weights are read.
    const probe = device.createStream(layers[0] as StreamConfig);
    probe.close();
    const model = await new Promise<NativeModel>((resolve, reject) =>
      native.loadModel(handle, { ...config, gated }, weights, (error, loaded) =>
        error ? reject(error) : resolve(loaded as NativeModel),
      ),
    );
    const core: ModelCore = {
      native: model,
      device: handle,
      config,
      vocabulary: { size: config.vocabulary, tokenizer },
      layers,
      watchers: new Set(),
    };
    return adoptModel(core, device, owned, Object.freeze(gates.map((gate) => Object.freeze(gate))));
  } finally {
    await files.close();
  }
}

function streamConfig(config: ModelConfig, gate: readonly number[]): StreamConfig {
  return {
    heads: config.heads,
    kvHeads: config.kvHeads,
    headDim: config.headDim,
    segmentLength: config.segmentLength,
    rule: config.rule,
    emptyRead: config.emptyRead,
    rope: { theta: config.ropeTheta },
    gate: [...gate],
    dtype: 'float32',
  };
}
