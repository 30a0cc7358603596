import { mkdir, readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { loadSession, type Model, type Session } from 'infini-stream';
import { ServiceError } from './errors';
import { type Entry, Journal } from './journal';
import { filesOf, LiveStream, type StreamLimits } from './stream';

/** All streams of a data folder, which has a folder for each user. Rejects when one of them cannot be had as it was. */
export async function recoverAll(model: Model, data: string, limits: StreamLimits): Promise<LiveStream[]> {
  await mkdir(data, { recursive: true });
  const streams: LiveStream[] = [];
  for (const place of await readdir(data, { withFileTypes: true })) {
    if (!place.isDirectory()) continue;
    const user = place.name;
    const folder = path.join(data, user);
    const files = await readdir(folder);
    const idsOf = (end: string) =>
      files.filter((name) => name.endsWith(end)).map((name) => name.slice(0, -end.length));
    const ids = idsOf('.log');
    for (const id of idsOf('.safetensors')) if (!ids.includes(id)) await rm(filesOf(folder, id).snapshot); // of a stream that was deleted
    for (const id of ids) streams.push(await recover(model, folder, user, id, limits));
  }
  return streams;
}

/** The last snapshot, and what the log has after it. */
async function recover(
  model: Model,
  folder: string,
  user: string,
  id: string,
  limits: StreamLimits,
): Promise<LiveStream> {
  const { log, snapshot } = filesOf(folder, id);
  const { journal, entries, cut } = await Journal.open(log);
  if (cut > 0) console.error(`stream ${id}: set ${cut} bytes aside that are no whole entries`);
  const session = (await loadIfThere(model, snapshot)) ?? model.createSession();
  const saved = session.tokens;
  await session.feed(tokensAfter(saved, entries, log)); // how they were cut before changes no bit
  return new LiveStream(id, user, folder, session, journal, limits, saved);
}

async function loadIfThere(model: Model, file: string): Promise<Session | undefined> {
  try {
    return await loadSession(model, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Entries before the snapshot's end are in it: the process died before the log was cleared. */
function tokensAfter(saved: number, entries: readonly Entry[], log: string): Int32Array {
  const tokens: number[] = [];
  for (const entry of entries) {
    if (entry.position + entry.tokens.length <= saved) continue;
    const expected = saved + tokens.length;
    if (entry.position !== expected)
      throw new ServiceError(
        'ERR_JOURNAL',
        503,
        `Expected an entry at token ${expected} in ${log} but received one at ${entry.position}`,
      );
    for (const token of entry.tokens) tokens.push(token);
  }
  return Int32Array.from(tokens);
}
