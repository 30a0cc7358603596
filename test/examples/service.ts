import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import path from 'node:path';

const root = path.join(__dirname, '../..');
export const MODEL = path.join(root, 'models/passkey-linear');
/** This process's own: test files run side by side. */
const compiled = path.join(root, `dist-examples-${process.pid}`);

/** As `npm run example:server` does. */
export function compileExamples(): void {
  const tsc = path.join(root, 'node_modules/typescript/bin/tsc');
  const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', 'examples', '--outDir', compiled], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stdout);
}

const running = new Set<ChildProcess>();
/** Ends those that a test which failed has left, and removes what was compiled. */
export function endServices(): void {
  for (const child of running) child.kill('SIGKILL');
  rmSync(compiled, { recursive: true, force: true });
}

/** The service as a process of its own, on the CPU, on a port of its own. */
export class Service {
  private constructor(
    readonly url: string,
    readonly child: ChildProcess,
    readonly exited: Promise<unknown[]>,
  ) {}

  static async start(data: string, settings: Record<string, string> = {}): Promise<Service> {
    const { INFINI_TEST_DEVICE: _, ...env } = process.env;
    const child = spawn(process.execPath, [path.join(compiled, 'server/main.js')], {
      env: {
        ...env,
        PATIENCE: '3600000',
        DATA: data,
        MODEL,
        DEVICE: 'cpu',
        HOST: '127.0.0.1',
        PORT: '0',
        ...settings,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const exited = once(child, 'exit');
    running.add(child);
    exited.then(() => running.delete(child));
    let said = '';
    const listening = new Promise<string>((resolve) => {
      for (const output of [child.stdout, child.stderr])
        output.on('data', (text) => {
          said += text;
          const found = /listening at (\S+)/.exec(said);
          if (found) resolve(found[1]);
        });
    });
    const url = await Promise.race([listening, exited]);
    if (typeof url !== 'string') throw new Error(`the service did not start: ${said}`);
    return new Service(url, child, exited);
  }

  /** As the machine would: nothing is told to it. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    expect(await this.exited).toEqual([null, 'SIGKILL']);
  }

  /** Gracefully. */
  async stop(): Promise<void> {
    this.child.kill('SIGTERM');
    expect(await this.exited).toEqual([0, null]);
  }

  /** For a user. A body makes it a POST. */
  async request(
    user: string,
    place: string,
    { body, ...init }: { method?: string; body?: unknown } = {},
  ): Promise<Response> {
    return fetch(`${this.url}${place}`, {
      headers: { 'x-user': user, ...(body !== undefined && { 'content-type': 'application/json' }) },
      ...(body !== undefined && { method: 'POST', body: JSON.stringify(body) }),
      ...init,
    });
  }

  /** The status and what was answered. */
  async ask(user: string, place: string, init?: { method?: string; body?: unknown }) {
    const response = await this.request(user, place, init);
    const text = await response.text();
    return { status: response.status, body: text === '' ? undefined : JSON.parse(text) };
  }

  async createStream(user: string): Promise<string> {
    const { status, body } = await this.ask(user, '/streams', { method: 'POST' });
    expect(status).toBe(201);
    return body.id;
  }
}

export interface Event {
  name: string;
  // biome-ignore lint/suspicious/noExplicitAny: whatever it is
  data: any;
}

/** Server-sent events, as they come. */
export async function* eventsOf(response: Response): AsyncGenerator<Event> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const bytes of response.body as unknown as AsyncIterable<Uint8Array>) {
    const parts = (rest + decoder.decode(bytes, { stream: true })).split('\n\n');
    rest = parts.pop() as string;
    for (const part of parts) {
      const [, name, data] = /^event: (\w+)\ndata: (.*)$/.exec(part) as RegExpExecArray;
      yield { name, data: JSON.parse(data) };
    }
  }
}
