// The service of examples/server over loopback, as a process of its own. Under load and killed: crash.test.ts.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { loadModel, type Model } from '../../lib';
import { compileExamples, type Event, endServices, eventsOf, MODEL, Service } from './service';

let model: Model;
let folder: string;
let service: Service;
beforeAll(async () => {
  compileExamples();
  model = await loadModel(MODEL, { device: 'cpu' });
  folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-service-'));
  service = await Service.start(path.join(folder, 'shared'), {
    STREAMS_PER_USER: '3',
    GENERATE_TOKENS: '500',
  });
});
afterAll(async () => {
  await service.stop();
  endServices();
  model.close();
  rmSync(folder, { recursive: true });
});

const feed = (user: string, id: string, body: unknown) =>
  service.ask(user, `/streams/${id}/tokens`, { body });

async function generate(from: Service, user: string, id: string, body: unknown): Promise<Event[]> {
  const events: Event[] = [];
  for await (const event of eventsOf(await from.request(user, `/streams/${id}/generate`, { body })))
    events.push(event);
  return events;
}

describe('a stream', () => {
  test('is made, takes tokens and texts, generates what its session does, and is deleted', async () => {
    const made = await service.ask('anna', '/streams', { method: 'POST' });
    expect(made.status).toBe(201);
    const { id } = made.body;
    expect(made.body).toEqual({ id: expect.any(String), user: 'anna', tokens: 0, bytes: expect.any(Number) });

    using session = model.createSession();
    const text = 'The pass key is 12345. ';
    await session.feed([1, 2, 3]);
    await session.feed(text);
    const { tokens: wanted, text: said } = await session.generate({ maxTokens: 6 });
    expect(await feed('anna', id, { tokens: [1, 2, 3] })).toEqual({
      status: 200,
      body: { tokens: 3, taken: 3 },
    });
    const { length } = model.encode(text);
    expect(await feed('anna', id, { text })).toEqual({
      status: 200,
      body: { tokens: 3 + length, taken: length },
    });
    const events = await generate(service, 'anna', id, { maxTokens: 6 });
    expect(events.pop()).toEqual({ name: 'end', data: {} });
    expect(events.map(({ data }) => data.token)).toEqual([...wanted]);
    expect(events.map(({ data }) => data.text).join('')).toBe(said);
    expect(events.map(({ data }) => data.tokens)).toEqual(Array.from(wanted, (_, i) => 4 + length + i));

    const state = await service.ask('anna', `/streams/${id}`);
    expect(state).toEqual({
      status: 200,
      body: { id, user: 'anna', tokens: session.tokens, bytes: session.byteLength },
    });
    expect((await service.ask('anna', `/streams/${id}`, { method: 'DELETE' })).status).toBe(204);
    for (const method of ['GET', 'DELETE'])
      expect(await service.ask('anna', `/streams/${id}`, { method })).toMatchObject({ status: 404 });
    expect(readdirSync(path.join(folder, 'shared', 'anna'))).toEqual([]);
  });

  test('is its user’s only, and a user has so many', async () => {
    const ids = await Promise.all([0, 1, 2].map(() => service.createStream('ben')));
    expect(await service.ask('ben', '/streams', { method: 'POST' })).toMatchObject({
      status: 429,
      body: { code: 'ERR_LIMIT' },
    });
    expect(await service.ask('eve', `/streams/${ids[0]}`)).toMatchObject({
      status: 404,
      body: { code: 'ERR_NO_STREAM' },
    });
    expect(await feed('eve', ids[0], { tokens: [1] })).toMatchObject({ status: 404 });
    await service.ask('ben', `/streams/${ids[0]}`, { method: 'DELETE' });
    await service.createStream('ben');
  });

  test('takes calls that come together one after the other', async () => {
    const id = await service.createStream('carl');
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, i) => feed('carl', id, { tokens: [i, i] })),
    );
    expect(answers.map(({ status }) => status)).toEqual(new Array(10).fill(200));
    expect(answers.map(({ body }) => body.tokens).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 10 }, (_, i) => 2 * (i + 1)),
    );
  });

  test('takes a request that is tried again once, if it says where its tokens begin', async () => {
    const id = await service.createStream('dora');
    expect((await feed('dora', id, { tokens: [5, 6], at: 0 })).status).toBe(200);
    expect(await feed('dora', id, { tokens: [5, 6], at: 0 })).toEqual({
      status: 409,
      body: { code: 'ERR_POSITION', message: 'Expected "at" to be 2, the stream\'s tokens, but received 0' },
    });
    expect((await feed('dora', id, { tokens: [7], at: 2 })).body).toEqual({ tokens: 3, taken: 1 });
  });

  test('goes on when a listener has left in the middle of a generation', async () => {
    const id = await service.createStream('fred');
    await feed('fred', id, { text: 'one two three' });
    const abort = new AbortController();
    const response = await fetch(`${service.url}/streams/${id}/generate`, {
      method: 'POST',
      headers: { 'x-user': 'fred', 'content-type': 'application/json' },
      body: '{"maxTokens":500}',
      signal: abort.signal,
    });
    let heard = 0;
    const listening = (async () => {
      for await (const { data } of eventsOf(response)) {
        heard = data.tokens;
        abort.abort();
      }
    })();
    await expect(listening).rejects.toMatchObject({ name: 'AbortError' });
    const { status, body } = await feed('fred', id, { tokens: [1] });
    expect(status).toBe(200);
    expect(body.tokens).toBeGreaterThan(heard);
    expect(body.tokens).toBeLessThan(heard + 500);
  });

  test('goes on when a listener has left before the first token', async () => {
    const id = await service.createStream('gina');
    const generate = (signal: AbortSignal) =>
      fetch(`${service.url}/streams/${id}/generate`, {
        method: 'POST',
        headers: { 'x-user': 'gina', 'content-type': 'application/json' },
        body: '{"maxTokens":500}',
        signal,
      });
    await feed('gina', id, { text: 'one two three' });
    const [first, second] = [new AbortController(), new AbortController()];
    const answer = await generate(first.signal); // it has the turn
    const waiting = generate(second.signal);
    setTimeout(() => second.abort(), 50);
    await expect(waiting).rejects.toMatchObject({ name: 'AbortError' });
    first.abort();
    await expect(answer.text()).rejects.toMatchObject({ name: 'AbortError' });
    expect((await feed('gina', id, { tokens: [1] })).status).toBe(200);
    expect((await feed('gina', id, { tokens: [2] })).status).toBe(200);
  });
});

describe('what is refused', () => {
  test.each([
    ['a token that is not in the vocabulary', { tokens: [278] }],
    ['a negative token', { tokens: [-1] }],
    ['a fraction', { tokens: [1.5] }],
    ['a token in words', { tokens: ['7'] }],
    ['null', { tokens: [null] }],
    ['no tokens', { tokens: [] }],
    ['an empty text', { text: '' }],
    ['both', { tokens: [1], text: 'a' }],
    ['neither', {}],
    ['a key that nobody knows', { tokens: [1], prompt: 'a' }],
    ['a place that is none', { tokens: [1], at: -1 }],
    ['an array', [1]],
  ])('%s', async (_, body) => {
    const id = await service.createStream('gina');
    expect(await feed('gina', id, body)).toEqual({
      status: 400,
      body: { code: 'FST_ERR_VALIDATION', message: expect.any(String) },
    });
    expect((await service.ask('gina', `/streams/${id}`)).body.tokens).toBe(0);
    await service.ask('gina', `/streams/${id}`, { method: 'DELETE' });
  });

  test.each([
    { maxTokens: 0 },
    { maxTokens: 501 },
    {},
    { maxTokens: 1, temperature: -1 },
    { maxTokens: 1, stop: [''] },
  ])('to generate with %j', async (body) => {
    const id = await service.createStream('hugo');
    expect(await service.ask('hugo', `/streams/${id}/generate`, { body })).toMatchObject({ status: 400 });
    await service.ask('hugo', `/streams/${id}`, { method: 'DELETE' });
  });

  test('to generate before there is a token', async () => {
    const id = await service.createStream('ida');
    expect(await service.ask('ida', `/streams/${id}/generate`, { body: { maxTokens: 1 } })).toMatchObject({
      status: 400,
      body: { code: 'ERR_OUT_OF_RANGE' },
    });
  });

  test('too much', async () => {
    const id = await service.createStream('jan');
    expect(await feed('jan', id, { text: 'a'.repeat(70_000) })).toMatchObject({
      status: 413,
      body: { code: 'FST_ERR_CTP_BODY_TOO_LARGE' },
    });
  });

  test.each(['..', 'a/b', 'A', '', 'a'.repeat(65)])('the user %j', async (user) => {
    expect(await service.ask(user, '/streams', { method: 'POST' })).toMatchObject({
      status: 400,
      body: { code: 'FST_ERR_VALIDATION' },
    });
  });

  test('a body that is no JSON, and a route that is none', async () => {
    const headers = { 'x-user': 'kim', 'content-type': 'application/json' };
    const broken = await fetch(`${service.url}/streams/x/tokens`, { method: 'POST', headers, body: '{' });
    expect(broken.status).toBe(400);
    expect(await service.ask('kim', '/nothing')).toMatchObject({
      status: 404,
      body: { code: 'ERR_NO_ROUTE' },
    });
  });
});

describe('/metrics', () => {
  const metrics = async () => {
    const text = await (await service.request('-', '/metrics')).text();
    const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    return new Map(
      lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]),
    );
  };

  test('has the events, the statistics of the device, requests and logs', async () => {
    const id = await service.createStream('lena');
    const before = await metrics();
    await feed('lena', id, { tokens: new Array(300).fill(9) }); // segments of 128
    await feed('lena', id, { tokens: [999] });
    const after = await metrics();
    const grown = (name: string) => (after.get(name) ?? Number.NaN) - (before.get(name) ?? 0);
    expect(grown('infini_attended_tokens_total{device="cpu"}')).toBe(300);
    expect(grown('infini_absorbed_segments_total{device="cpu"}')).toBe(2);
    expect(grown('infini_call_seconds_count{device="cpu",event="attend"}')).toBe(1);
    expect(grown('infini_device_tokens_total')).toBe(600); // in each of two layers
    expect(grown('infini_device_kernel_milliseconds_total')).toBeGreaterThan(0);
    expect(after.get('infini_device_streams')).toBe(2 * (after.get('service_streams') as number));
    expect(grown('service_log_entries_total')).toBe(1);
    expect(grown('service_log_groups_total')).toBe(1);
    const requests = (status: number) =>
      `http_request_seconds_count{method="POST",route="/streams/:id/tokens",status="${status}"}`;
    expect([grown(requests(200)), grown(requests(400))]).toEqual([1, 1]);
    expect(after.get('process_resident_memory_bytes')).toBeGreaterThan(0);
    expect((await service.ask('-', '/healthz')).body).toEqual({
      status: 'ok',
      streams: after.get('service_streams'),
    });
  });
});

describe('a restart', () => {
  test('after SIGTERM in the middle of a generation goes on where it was', async () => {
    const data = path.join(folder, 'stopped');
    const first = await Service.start(data);
    const id = await first.createStream('max');
    await first.ask('max', `/streams/${id}/tokens`, { body: { text: 'It was a dark and stormy night; ' } });
    const response = await first.request('max', `/streams/${id}/generate`, { body: { maxTokens: 4000 } });
    const events: Event[] = [];
    for await (const event of eventsOf(response)) {
      if (events.length === 3) first.child.kill('SIGTERM');
      events.push(event);
    }
    expect(events.pop()).toMatchObject({ name: 'error', data: { code: 'ABORT_ERR' } });
    expect(events.length).toBeLessThan(4000);
    expect(await first.exited).toEqual([0, null]);

    using session = model.createSession();
    await session.feed('It was a dark and stormy night; ');
    const { tokens } = await session.generate({ maxTokens: events.length });
    expect(events.map(({ data: { token } }) => token)).toEqual([...tokens]);
    const file = path.join(data, 'max', `${id}.safetensors`);
    expect(Buffer.compare(readFileSync(file), await session.snapshot())).toBe(0);
    expect(statSync(path.join(data, 'max', `${id}.log`)).size).toBe(0);

    const second = await Service.start(data);
    const { tokens: more } = await session.generate({ maxTokens: 5 });
    const rest = await generate(second, 'max', id, { maxTokens: 5 });
    expect(rest.slice(0, -1).map(({ data: { token } }) => token)).toEqual([...more]);
    await second.stop();
  });

  test('skips what the snapshot has, removes what was deleted, and refuses a log with a gap', async () => {
    const data = path.join(folder, 'edited');
    const first = await Service.start(data, { LOG_TOKENS: '1000000' });
    const ids = [await first.createStream('nora'), await first.createStream('nora')];
    for (const id of ids)
      for (const tokens of [[1, 2, 3], [4]])
        await first.ask('nora', `/streams/${id}/tokens`, { body: { tokens } });
    const fileOf = (id: string, end: string) => path.join(data, 'nora', `${id}.${end}`);
    const [log, deletedLog] = ids.map((id) => readFileSync(fileOf(id, 'log')));
    expect(log.length).toBe(2 * 16 + 4 * 4);
    await first.stop();
    writeFileSync(fileOf(ids[0], 'log'), log); // as if it had died before it cleared the log
    rmSync(fileOf(ids[1], 'log')); // or in the middle of a deletion
    const second = await Service.start(data);
    expect((await second.ask('nora', `/streams/${ids[0]}`)).body.tokens).toBe(4);
    expect((await second.ask('nora', `/streams/${ids[1]}`)).status).toBe(404);
    expect(existsSync(fileOf(ids[1], 'safetensors'))).toBe(false);
    await second.kill();
    writeFileSync(fileOf(ids[1], 'log'), deletedLog.subarray(16 + 3 * 4)); // without its first entry
    await expect(Service.start(data)).rejects.toThrow(
      /Expected an entry at token 0 in .* but received one at 3/,
    );
  });

  test('by SIGTERM does not wait for those who send nothing', async () => {
    const other = await Service.start(path.join(folder, 'idle'));
    const socket = connect(Number(new URL(other.url).port), '127.0.0.1');
    await new Promise((resolve) => socket.once('connect', resolve));
    await other.stop();
    socket.destroy();
  });
});
