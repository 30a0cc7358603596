import { Readable } from 'node:stream';
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify';
import type { GenerateOptions } from 'infini-stream';
import { answerOf, ServiceError } from './errors';
import { written } from './journal';
import type { Metrics } from './metrics';
import { type Feed, schemasFor } from './schemas';
import type { Sessions } from './sessions';
import type { LiveStream, Said } from './stream';

export interface ServerOptions {
  bodyBytes: number;
  /** Tokens that one request may generate. */
  generateTokens: number;
}

type Params = { Params: { id: string } };

/** The routes. `stopping` ends the generations of a service that shuts down: what they have said is on the disk. */
export function makeServer(
  sessions: Sessions,
  metrics: Metrics,
  stopping: AbortSignal,
  { bodyBytes, generateTokens }: ServerOptions,
): FastifyInstance {
  const { model } = sessions;
  const schemas = schemasFor(model.config.vocabulary, generateTokens);
  const server = Fastify({
    bodyLimit: bodyBytes,
    requestTimeout: 30_000, // to send a request
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false } }, // '7' is no token
  });
  server.setErrorHandler((error, _, reply) => {
    const { status, body } = answerOf(error);
    if (status === 500) console.error(error);
    return reply.status(status).send(body);
  });
  server.setNotFoundHandler((_, reply) =>
    reply.status(404).send({ code: 'ERR_NO_ROUTE', message: 'Expected one of the routes of README.md' }),
  );
  observe(server, sessions, metrics);

  server.get('/healthz', () => ({ status: 'ok', streams: sessions.size }));
  server.get('/metrics', async (_, reply) =>
    reply.type(metrics.registry.contentType).send(await metrics.registry.metrics()),
  );

  const userOf = (request: FastifyRequest) => request.headers['x-user'] as string;
  const streamOf = (request: FastifyRequest<Params>) => sessions.get(userOf(request), request.params.id);
  const stateOf = ({ id, user, tokens, session }: LiveStream) => ({
    id,
    user,
    tokens,
    bytes: session.byteLength,
  });

  server.post('/streams', { schema: schemas.user }, async (request, reply) =>
    reply.status(201).send(stateOf(await sessions.create(userOf(request)))),
  );
  server.get<Params>('/streams/:id', { schema: schemas.user }, (request) => stateOf(streamOf(request)));
  server.delete<Params>('/streams/:id', { schema: schemas.user }, async (request, reply) => {
    await sessions.remove(userOf(request), request.params.id);
    return reply.status(204).send();
  });
  server.post<Params & { Body: Feed }>('/streams/:id/tokens', { schema: schemas.feed }, async (request) => {
    const { tokens, text, at } = request.body;
    const ids = tokens === undefined ? model.encode(text as string) : Int32Array.from(tokens);
    if (ids.length === 0)
      throw new ServiceError('ERR_OUT_OF_RANGE', 400, 'Expected text of one token at least');
    return { tokens: await streamOf(request).feed(ids, at), taken: ids.length };
  });
  server.post<Params & { Body: GenerateOptions }>(
    '/streams/:id/generate',
    { schema: schemas.generate },
    async (request, reply) => {
      const said = streamOf(request).generate({ ...request.body, signal: stopping });
      const first = await said.next(); // what goes wrong before it has a status of its own
      // A listener who has left may never have the answer read at all: the turn ends here, too.
      const end = () => void said.return(undefined);
      if (reply.raw.destroyed) end();
      else reply.raw.once('close', end);
      return reply
        .type('text/event-stream')
        .header('cache-control', 'no-store')
        .send(Readable.from(events(first, said)));
    },
  );
  return server;
}

/** Server-sent events: a `token` for each token, and `end` or `error`. */
async function* events(first: IteratorResult<Said>, said: AsyncGenerator<Said>): AsyncGenerator<string> {
  const event = (name: string, data: unknown) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
  try {
    for (let next = first; !next.done; next = await said.next()) yield event('token', next.value);
    yield event('end', {});
  } catch (error) {
    yield event('error', answerOf(error).body);
  } finally {
    await said.return(undefined); // the listener may have left
  }
}

function observe(server: FastifyInstance, sessions: Sessions, metrics: Metrics): void {
  const labels = ['method', 'route', 'status'];
  const seconds = metrics.histogram('http_request_seconds', 'Until the whole answer is sent', labels);
  metrics.gauge('service_streams', 'Open streams', () => sessions.size);
  metrics.total('service_log_groups_total', 'Writes to logs, an fsync each', () => written.groups);
  metrics.total('service_log_entries_total', 'Entries in them', () => written.entries);
  server.addHook('onResponse', async (request, reply) => {
    const { url = 'none' } = request.routeOptions; // the pattern, not the address
    seconds.observe(
      { method: request.method, route: url, status: reply.statusCode },
      reply.elapsedTime / 1000,
    );
  });
}
