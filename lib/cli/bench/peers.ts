import { type ChildProcess, spawn } from 'node:child_process';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { type Case, type Contender, type Run, Skipped } from './contender';
import { cut } from './work';

/** What bench/peers/cpu_peers.py can be asked for: the same work, and what decodes without a memory. */
export const PEERS = ['torch eager', 'torch.compile', 'numpy'];
export const CACHES = ['torch, 4K cached', 'torch, 16K cached', 'torch, 64K cached'];

type Answer = { ready: true; error: number; bytes: number | null } | { skipped: string } | Run;

/** A Python process that holds one peer, warm, and does what it is told line by line. */
class Worker {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #failure = '';

  constructor(script: string, threads: number) {
    const limits = Object.fromEntries(
      ['OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'].map((name) => [name, String(threads)]),
    );
    this.#child = spawn('python3', [script], {
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

export async function enterPeer(
  script: string,
  name: string,
  one: Case,
  signal: AbortSignal,
): Promise<Contender> {
  if (one.heads !== one.kvHeads) throw new Skipped('it has no grouped heads');
  const worker = new Worker(script, one.threads);
  signal.addEventListener('abort', () => worker.close(), { once: true }); // a long answer is not waited for
  const about: Contender['about'] = {};
  try {
    const segments = one.work === 'prefill' ? Math.max(1, Math.round(cut(one).tokens / one.segment)) : 1;
    const answer = await worker.ask({ peer: name, ...one, segments });
    if ('skipped' in answer) throw new Skipped(answer.skipped);
    if ('ready' in answer)
      Object.assign(about, { error: answer.error, ...(answer.bytes && { bytes: answer.bytes }) });
  } catch (error) {
    worker.close();
    throw error;
  }
  return {
    name,
    about,
    run: async () => (await worker.ask({ run: true })) as Run,
    close: () => worker.close(),
  };
}
