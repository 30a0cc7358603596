// Packs the package as `npm publish` would, installs it in an empty folder as a user would, and uses it there.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, run, runTool } from './run.js';

jest.setTimeout(600_000);

const folder = mkdtempSync(join(tmpdir(), 'infini-stream-package-'));
const user = join(folder, 'user');
const installed = join(user, 'node_modules/infini-stream');
let tarball = '';

const usage = `
  const device = openDevice('cpu');
  const stream = device.createStream({ heads: 2, headDim: 4, segmentLength: 4 });
  const q = Float32Array.from({ length: 9 * 2 * 4 }, (_, i) => Math.sin(i));
  stream.attend({ q, k: q.map(Math.cos), v: q.map((x) => x * x) }).then((out) => {
    console.log(JSON.stringify({ out: [...out], tokens: stream.tokens, segments: stream.segments }));
    device.close();
  });
`;

const typedUsage = `
  const device: Device = openDevice('auto', { threads: 1 });
  using stream: MemoryStream = device.createStream({ heads: 1, headDim: 2, dtype: 'float32' });
  const out: Promise<Tensor> = stream.attend({
    q: new Float32Array(2),
    k: new Float32Array(2),
    v: new Float32Array(2),
  });
  out.then((tensor) => console.log(tensor.length));
  const tensor: DeviceTensor = device.tensor([1, 1, 2], 'float32', new Float32Array(device.hostBuffer(8)));
  const inPlace: Promise<DeviceTensor> = stream.attend({ q: tensor, k: tensor, v: tensor }, { out: tensor });
  inPlace.catch((error: InfiniError) => console.log(error.code));
  using batch: Batch = device.createBatch([stream]);
  const step: Tensor = batch.stepSync({ q: tensor, k: tensor, v: tensor });
  device.attendBatch([{ stream, q: tensor, k: tensor, v: step }]).then(([{ status }]) => console.log(status));
  async function speak(model: Model): Promise<string> {
    using session: Session = model.createSession();
    await session.feed('text', { onProgress: ({ tokens }) => console.log(tokens) });
    for await (const { token, text } of session.generate({ maxTokens: 3, stop: ['.', 7] })) console.log(token, text);
    const { finish }: Generated = await session.generate({ maxTokens: 1 });
    await model.feedAll([{ session, input: Int32Array.of(1) }]);
    await saveSession(session, 'session');
    const again: Session[] = [await loadSession(model, 'session'), await model.restoreSession(await session.snapshot())];
    return finish + model.config.rule + session.logits().length + again.length;
  }
  loadModel('models/mine', { device }).then(speak);
  async function keep(): Promise<MemoryStream> {
    const bytes: Uint8Array = await stream.snapshot();
    await saveStream(await device.restore(bytes), 'state');
    return loadStream(device, 'state');
  }
  keep().catch((error: InfiniError) => console.log(error.code === 'ERR_SNAPSHOT'));
  using scheduler: StreamScheduler = new StreamScheduler(device, { whenFull: 'reject' });
  const scheduled: ScheduledStream = scheduler.createStream({ heads: 1, headDim: 2 });
  const { readable, writable }: AttendTransform = scheduled.transform();
  readable.pipeTo(new WritableStream<Tensor>()).then(() => console.log(scheduler.stats().queued, writable.locked));
  diagnostics.subscribe('infini-stream:attend', (event) => console.log((event as AttendEvent).milliseconds));
`;

/** Runs a file in the user's folder; only the prebuild may be loaded. */
function runThere(file: string): string {
  return run(process.execPath, [file], { cwd: user, env: { PREBUILDS_ONLY: '1' } });
}

beforeAll(() => {
  mkdirSync(user);
  writeFileSync(join(user, 'package.json'), '{ "name": "user", "private": true }');
  run('npm', ['pack', '--pack-destination', folder]); // builds, and runs prebuildify
  tarball = join(folder, readdirSync(folder).find((name) => name.endsWith('.tgz')) ?? 'no tarball');
  const quick = ['--prefer-offline', '--no-audit', '--no-fund'];
  run('npm', ['install', '--ignore-scripts', ...quick, tarball], { cwd: user });
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('the published package', () => {
  test('holds the compiled library and a prebuild, and nothing that builds', () => {
    expect(readdirSync(installed).sort()).toEqual([
      'LICENSE',
      'README.md',
      'dist',
      'lib',
      'models',
      'package.json',
      'prebuilds',
    ]);
    expect(readdirSync(join(installed, 'lib'), { recursive: true })).toEqual(
      expect.not.arrayContaining([expect.stringMatching(/\.m?ts$/)]), // the demo's text only
    );
    const addons = readdirSync(installed, { recursive: true }).filter((file) =>
      String(file).endsWith('.node'),
    );
    expect(addons).toEqual([expect.stringMatching(/^prebuilds\W/)]); // not the one that emulates CUDA
    expect(statSync(join(installed, String(addons[0]))).size).toBeLessThan(12e6);
  });

  test('knows nothing of the test device', () => {
    writeFileSync(join(user, 'device.cjs'), `require('infini-stream').openDevice('cpu').close();`);
    run(process.execPath, ['device.cjs'], { cwd: user, env: { INFINI_TEST_DEVICE: 'cuda-emulated' } });
  });

  test('has no install script', () => {
    const { scripts, gypfile } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'));
    expect(Object.keys(scripts).filter((name) => /install|^prepare$/.test(name))).toEqual([]);
    expect(gypfile).toBe(false);
  });

  test('runs a stream the same way with require and with import', () => {
    writeFileSync(join(user, 'a.cjs'), `const { openDevice } = require('infini-stream');${usage}`);
    writeFileSync(join(user, 'a.mjs'), `import { openDevice } from 'infini-stream';${usage}`);
    const result = JSON.parse(runThere('a.cjs'));
    expect(result).toMatchObject({ tokens: 9, segments: 2 });
    expect(result.out).toHaveLength(9 * 2 * 4);
    expect(result.out.every(Number.isFinite)).toBe(true);
    expect(JSON.parse(runThere('a.mjs'))).toEqual(result);
  });

  test('is one module however it is loaded', () => {
    const script = `
      import { createRequire } from 'node:module';
      import * as imported from 'infini-stream';
      const required = createRequire(import.meta.url)('infini-stream');
      console.log(Object.keys(required).every((name) => required[name] === imported[name]), Object.keys(required).sort().join());
    `;
    writeFileSync(join(user, 'one.mjs'), script);
    expect(runThere('one.mjs').trim()).toBe(
      'true Batch,Device,DeviceTensor,MemoryStream,Model,Recorder,ScheduledStream,Session,StreamScheduler,' +
        'applyTransition,composeTransitions,listDevices,loadModel,loadSession,loadStream,mergeStreams,openDevice,' +
        'saveSession,saveStream',
    );
  });

  test('has a command, which finds its models and the text of its demo', () => {
    const infiniStream = (...args: string[]) =>
      run('npx', ['--no-install', 'infini-stream', ...args], { cwd: user, env: { PREBUILDS_ONLY: '1' } });
    expect(infiniStream('devices')).toMatch(/cpu/);
    const demo = JSON.parse(infiniStream('demo', '--features', '--tokens', '20000', '--json'));
    expect(demo.text.name).toMatch(/Moby-Dick/);
    expect(JSON.parse(infiniStream('gates', '--json')).model.rule).toBe('linear');
  });

  test('has types for TypeScript users of both module systems', () => {
    const types =
      'AttendEvent, AttendTransform, Batch, Device, DeviceTensor, Generated, InfiniError, MemoryStream, Model, ' +
      'ScheduledStream, Session, Tensor';
    const importLine = `
      import diagnostics from 'node:diagnostics_channel';
      import { WritableStream } from 'node:stream/web';
      import { loadModel, loadSession, loadStream, openDevice, saveSession, saveStream, StreamScheduler, ${types.replace(/\w+/g, 'type $&')} } from 'infini-stream';`;
    for (const file of ['typed.mts', 'typed.cts']) writeFileSync(join(user, file), importLine + typedUsage);
    const roots = ['--typeRoots', join(root, 'node_modules/@types'), '--types', 'node'];
    const options = ['--noEmit', '--strict', '--target', 'es2022', '--lib', 'es2022,esnext.disposable'];
    const args = ['--module', 'nodenext', ...options, ...roots, 'typed.mts', 'typed.cts'];
    runTool('typescript/bin/tsc', args, user);
  });

  test('passes publint', () => {
    expect(runTool('publint/src/cli.js', ['run', '--strict', tarball])).toMatch(/All good!/);
  });

  test('passes attw', () => {
    const args = ['--no-definitely-typed', '--no-emoji', '--format', 'ascii', tarball];
    expect(runTool('@arethetypeswrong/cli/dist/index.js', args)).toMatch(/No problems found/);
  });
});
