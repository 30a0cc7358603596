// Starts the service: `npm run example:server`. Settings are environment variables.
import path from 'node:path';
import { type LoadModelOptions, loadModel } from 'infini-stream';
import { Metrics } from './metrics';
import { makeServer } from './server';
import { Sessions } from './sessions';
import { makeStop } from './stop';

function setting(name: string, standard: number): number {
  const value = Number(process.env[name] ?? standard);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new Error(`Expected a whole number for ${name} but received '${process.env[name]}'`);
}

async function main(): Promise<void> {
  const { DATA = 'data', MODEL = 'models/passkey-linear', DEVICE = 'auto', HOST = '127.0.0.1' } = process.env;
  const port = setting('PORT', 8080);
  const limits = {
    streams: setting('STREAMS', 1000),
    streamsPerUser: setting('STREAMS_PER_USER', 8),
    waiting: setting('WAITING', 16),
    logTokens: setting('LOG_TOKENS', 65_536),
  };
  const options = {
    bodyBytes: setting('BODY_BYTES', 65_536),
    generateTokens: setting('GENERATE_TOKENS', 4096),
  };

  const model = await loadModel(MODEL, { device: DEVICE } as LoadModelOptions);
  const metrics = new Metrics(model.device);
  const sessions = await Sessions.open(model, path.resolve(DATA), limits);
  const stopping = new AbortController();
  const server = makeServer(sessions, metrics, stopping.signal, options);

  const stopServer = makeStop(server, setting('PATIENCE', 10_000));
  const signals = ['SIGTERM', 'SIGINT'] as const;
  const stop = async () => {
    for (const signal of signals) process.off(signal, stop); // a second one ends it at once
    stopping.abort(); // generations end at their next token
    await stopServer();
    await sessions.close();
    metrics.close();
    model.close();
  };
  for (const signal of signals) process.on(signal, stop);
  console.log(`listening at ${await server.listen({ host: HOST, port })}`);
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
