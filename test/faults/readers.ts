import { loadModel, type Model, type Session } from '../../lib';
import type { Crowd } from '../soak/crowd';
import type { Operation } from '../soak/operations';
import { onCuda } from '../support/device';
import { writeTinyModel } from '../support/tiny-model';

const VOCABULARY = 24;
const MOST = 6;

/** A session, the tokens that it took in calls that have succeeded, and how many calls have not settled. */
interface Reader {
  model: Model;
  session: Session;
  tokens: number[];
  pending: number;
  /** No more calls: what it said last is not known here. */
  ended: boolean;
}

/** Sessions of a small model beside the streams of a crowd, whose engine they share. */
export class Readers {
  readonly operations: readonly Operation[] = [
    { weight: 0.5, name: 'load a model', run: (crowd) => this.#load(crowd) },
    { weight: 3, name: 'feed', run: (crowd) => this.#feed(crowd) },
    { weight: 2, name: 'feedAll', run: (crowd) => this.#feedAll(crowd) },
    { weight: 2, name: 'generate', run: (crowd) => this.#generate(crowd) },
    { weight: 2, name: 'generateAll', run: (crowd) => this.#generateAll(crowd) },
    { weight: 1, name: 'fork a session', run: (crowd) => this.#fork(crowd) },
    { weight: 1, name: 'restore a session', run: (crowd) => this.#restore(crowd) },
  ];
  readonly #directory: string;
  /** The first was loaded when nothing failed. */
  readonly #models: Model[];
  readonly #readers: Reader[] = [];

  static async open(directory: string, crowd: Crowd): Promise<Readers> {
    await writeTinyModel(directory, { vocabulary: VOCABULARY });
    return new Readers(directory, await loadModel(directory, { device: crowd.devices[0] }));
  }

  private constructor(directory: string, model: Model) {
    this.#directory = directory;
    this.#models = [model];
  }

  /** Nothing is pending: every session must be what its tokens make of it. Then they are closed. */
  async rest(crowd: Crowd): Promise<void> {
    const [model, ...others] = this.#models.splice(0);
    for (const { session, tokens, ended } of this.#readers.splice(0)) {
      const unknown = session.tokens - tokens.length;
      if (unknown < 0 || (unknown > 0 && !ended))
        throw new Error(`a session has ${session.tokens} tokens instead of ${tokens.length}`);
      using twin = model.createSession();
      await twin.feed(tokens);
      if (unknown > 0) await twin.generate({ maxTokens: unknown });
      if (tokens.length > 0) expectSame(session.logits(), twin.logits());
      session.close();
      crowd.count('verified sessions');
    }
    for (const other of others) other.close();
    this.#models.push(model);
  }

  #admit(model: Model, session: Session, tokens: readonly number[]): void {
    if (this.#readers.length >= MOST) session.close();
    else this.#readers.push({ model, session, tokens: [...tokens], pending: 0, ended: false });
  }

  #pick({ rng }: Crowd): Reader {
    const able = this.#readers.filter(({ ended }) => !ended);
    if (able.length > 2) return rng.pick(able);
    const model = rng.pick(this.#models);
    const reader = { model, session: model.createSession(), tokens: [], pending: 0, ended: false };
    this.#readers.push(reader);
    return reader;
  }

  /** Some of one model. */
  #some(crowd: Crowd): Reader[] {
    const first = this.#pick(crowd);
    const alike = this.#readers.filter(
      (other) => other !== first && !other.ended && other.model === first.model,
    );
    return [first, ...alike.slice(0, 2)];
  }

  /** A call on these; `done` is told its result. */
  #follow<T>(
    crowd: Crowd,
    what: string,
    readers: Reader[],
    call: PromiseLike<T>,
    done: (result: T) => void,
  ): void {
    for (const reader of readers) reader.pending++;
    const watched = Promise.resolve(call).finally(() => {
      for (const reader of readers) reader.pending--;
    });
    crowd.follow(what, watched, done, nothing, () => []);
  }

  #load(crowd: Crowd): void {
    const call = loadModel(this.#directory, { device: crowd.devices[0] });
    this.#follow(crowd, 'loadModel', [], call, (model) => this.#models.push(model));
  }

  #feed(crowd: Crowd): void {
    const reader = this.#pick(crowd);
    const tokens = draw(crowd);
    const done = () => reader.tokens.push(...tokens);
    this.#follow(crowd, 'feed', [reader], reader.session.feed(tokens), done);
  }

  #feedAll(crowd: Crowd): void {
    const readers = this.#some(crowd);
    const entries = readers.map(({ session }) => ({ session, input: draw(crowd) }));
    const done = () => {
      for (const [i, { input }] of entries.entries()) readers[i].tokens.push(...input);
    };
    this.#follow(crowd, 'feedAll', readers, readers[0].model.feedAll(entries), done);
  }

  /** Tokens that were seen are in the session, whatever comes after them. */
  #generate(crowd: Crowd): void {
    const reader = this.#pick(crowd);
    if (reader.pending > 0 || reader.tokens.length === 0) return;
    const generation = reader.session.generate({ maxTokens: 4 });
    const call = (async () => {
      for await (const { token } of generation) reader.tokens.push(token);
    })();
    this.#follow(crowd, 'generate', [reader], call, nothing);
  }

  /** When it fails each session keeps the tokens of the steps before, whatever they were: those that its twin says. */
  #generateAll(crowd: Crowd): void {
    const readers = this.#some(crowd).filter(({ pending, tokens }) => pending === 0 && tokens.length > 0);
    if (readers.length === 0) return;
    const sessions = readers.map(({ session }) => session);
    const call = (async () => {
      for (const reader of readers) reader.ended = true;
      const said = await readers[0].model.generateAll(sessions, { maxTokens: 4 });
      for (const [i, { tokens }] of said.entries()) {
        readers[i].tokens.push(...tokens);
        readers[i].ended = false;
      }
    })();
    this.#follow(crowd, 'generateAll', readers, call, nothing);
  }

  #fork(crowd: Crowd): void {
    const { model, session, tokens, pending } = this.#pick(crowd);
    if (pending === 0) this.#admit(model, session.fork(), tokens);
  }

  #restore(crowd: Crowd): void {
    const reader = this.#pick(crowd);
    if (reader.pending > 0) return;
    const { model, session } = reader;
    const tokens = [...reader.tokens];
    const call = session.snapshot().then((bytes) => model.restoreSession(bytes));
    this.#follow(crowd, 'restoreSession', [reader], call, (restored) => this.#admit(model, restored, tokens));
  }
}

const nothing = () => {};

const draw = ({ rng }: Crowd): number[] =>
  Array.from({ length: rng.int(1, 20) }, () => rng.int(0, VOCABULARY - 1));

/** Bit for bit on the CPU; on CUDA how tokens come in changes the last digits. */
function expectSame(logits: Float32Array, wanted: Float32Array): void {
  const scale = Math.max(...wanted.map(Math.abs));
  const error = Math.max(...logits.map((logit, i) => Math.abs(logit - wanted[i])));
  if (error > (onCuda ? 1e-5 * scale : 0))
    throw new Error(`logits of a session are off by ${error} of ${scale}`);
}
