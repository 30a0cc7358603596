import type { FastifyInstance } from 'fastify';

/**
 * How to stop a server: it takes no more requests, answers those that are here, for so many milliseconds at most, and waits
 * for no connection that asks nothing. To be called before it listens.
 */
export function makeStop(server: FastifyInstance, patience: number): () => Promise<void> {
  let answering = 0;
  server.addHook('onRequest', async (_, reply) => {
    answering++;
    reply.raw.once('close', () => answering--);
  });
  return async () => {
    const late = Date.now() + patience;
    const look = setInterval(() => {
      if (answering === 0 || Date.now() > late) server.server.closeAllConnections();
    }, 20);
    await server.close();
    clearInterval(look);
  };
}
