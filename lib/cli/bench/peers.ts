import { type ChildProcess, spawn } from 'node:child_process';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { type Case, type Contender, type Entry, type Run, Skipped, type Work } from './contender';
import { cut } from './work';

/** What a peer's program can be asked for (bench/peers/). */
interface Offer {
  name: string;
  works: Work[];
  /** It does not do the same work: full attention over a cache, beside decoding. */
  otherWork?: boolean;
}

type Answer =
  | { ready: true; error: number; bytes: number | null }
  | { skipped: string }
  | { offers: Offer[] }
  | Run;

/** A process that holds one peer, warm, and does what it is told line by line. */
class Worker {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #failure = '';

  constructor(script: string, threads: number) {
    const limits = Object.fromEntries(
      ['OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'].map((name) => [name, String(threads)]),
    );
    this.#child = spawn(script.endsWith('.py') ? 'python3' : process.execPath, [script], {
      cwd: path.dirname(script),
      env: { ...process.env, ...limits },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#child.on('error', (error) => {
      this.#failure = error.message;
    });
    this.#child.stdin?.on('error', () => {}); // it has ended: the missing answer says so
    this.#child.stderr?.on('data', (text: Buffer) => {
      this.#failure = text.toString().trim().split('\n').at(-1) ?? '';
    });
    this.#lines = createInterface({ input: this.#child.stdout as NodeJS.ReadableStream })[
      Symbol.asyncIterator
    ]();
  }

  async ask(question: object): Promise<Answer> {
    this.#child.stdin?.write(`${JSON.stringify(question)}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Skipped(this.#failure || 'its process ended');
    try {
      return JSON.parse(value);
    } catch {
      throw new Skipped(`it answered '${value}'`);
    }
  }

  close(): void {
    this.#child.kill('SIGKILL');
  }
}

/** All that a program offers; one that can not be started is skipped under its own name. */
export async function peersOf(program: string): Promise<Entry[]> {
  const script = path.resolve(program);
  const worker = new Worker(script, 1);
  try {
    const answer = await worker.ask({ offers: true });
    if (!('offers' in answer)) throw new Skipped('it offers nothing');
    return answer.offers.map(({ name, works, otherWork }) => ({
      name,
      only: works,
      otherWork,
      enter: (one, signal) => enterPeer(script, name, one, signal),
    }));
  } catch (error) {
    if (!(error instanceof Skipped)) throw error;
    return [{ name: path.basename(program), enter: () => Promise.reject(error) }];
  } finally {
    worker.close();
  }
}

/** Streams side by side are to a peer nothing but more heads, and stepping them is decoding. */
function asOneStream({ work, streams = 1, heads, ...one }: Case): Case {
  const works: Partial<Record<Work, Work>> = { batch: 'prefill', step: 'decode' };
  return { ...one, work: works[work] ?? work, heads: heads * streams };
}

/** Segments of a run. */
function segmentsOf(one: Case): number {
  if (one.streams !== undefined || one.work === 'decode') return 1;
  return Math.max(1, Math.round(cut(one).tokens / one.segment));
}

async function enterPeer(script: string, name: string, one: Case, signal: AbortSignal): Promise<Contender> {
  if (one.heads !== one.kvHeads) throw new Skipped('it has no grouped heads');
  const { streams = 1 } = one;
  const worker = new Worker(script, one.threads);
  const close = () => {
    signal.removeEventListener('abort', close);
    worker.close();
  };
  signal.addEventListener('abort', close); // a long answer is not waited for
  const about: Contender['about'] = {};
  try {
    const answer = await worker.ask({ peer: name, ...asOneStream(one), segments: segmentsOf(one) });
    if ('skipped' in answer) throw new Skipped(answer.skipped);
    if ('ready' in answer)
      Object.assign(about, { error: answer.error, ...(answer.bytes && { bytes: answer.bytes }) });
  } catch (error) {
    close();
    throw error;
  }
  return {
    name,
    about,
    run: async () => {
      const { seconds, tokens } = (await worker.ask({ run: true })) as Run;
      return { seconds, tokens: tokens * streams };
    },
    close,
  };
}
