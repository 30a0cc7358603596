import { randomBytes } from 'node:crypto';
import { type FileHandle, open, readdir, rename, stat, unlink } from 'node:fs/promises';
import path from 'node:path';

/** The end of the last replacement of each path. */
const tails = new Map<string, Promise<unknown>>();

/**
 * Makes `file` hold these bytes: at any moment, whatever dies, it is the old file or the new one. They go to another file,
 * which is on the disk before it takes the name; at the end the name is on the disk too. Replacements of one path
 * take effect in call order. Rejects as the bytes do, or with an error of the operating system.
 */
export async function replaceFile(file: string, bytes: Promise<Uint8Array>): Promise<void> {
  bytes.catch(() => {}); // whoever waits below hears of it, when its turn comes
  const before = tails.get(file);
  const work = (async () => {
    await before?.catch(() => {});
    await replaceNow(file, await bytes);
  })();
  tails.set(file, work);
  try {
    await work;
  } finally {
    if (tails.get(file) === work) tails.delete(file);
  }
}

async function replaceNow(file: string, bytes: Uint8Array): Promise<void> {
  const folder = path.dirname(file);
  await sweep(folder);
  const temporary = path.join(folder, temporaryName());
  const handle = await open(temporary, 'wx', await modeOf(file));
  try {
    await withHandle(handle, async () => {
      await handle.writeFile(bytes);
      await handle.sync();
    });
    await rename(temporary, file);
  } catch (error) {
    await unlink(temporary).catch(() => {});
    throw error;
  }
  const directory = await open(folder, 'r');
  await withHandle(directory, () => directory.sync());
}

/** Whoever may not read the old file may not read the new one. */
async function modeOf(file: string): Promise<number> {
  const stats = await stat(file).catch(() => undefined);
  return stats === undefined ? 0o666 : stats.mode & 0o777;
}

async function withHandle(handle: FileHandle, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    await handle.close().catch(() => {});
    throw error;
  }
  await handle.close();
}

/** Nobody else's: other processes and threads save here too. */
const temporaryName = () => `.infini-stream-${process.pid}-${randomBytes(8).toString('hex')}.tmp`;
const pattern = /^\.infini-stream-(\d{1,10})-[\da-f]{16}\.tmp$/;

/** The folders that were swept by this thread. */
const swept = new Set<string>();
const MOST_SWEPT = 1000;

/** Before its first file in a folder, a process removes the temporary files that dead processes have left there. */
async function sweep(folder: string): Promise<void> {
  if (swept.has(folder)) return;
  if (swept.size === MOST_SWEPT) swept.clear();
  swept.add(folder);
  const names = await readdir(folder).catch((): string[] => []); // who may only write there need not read
  for (const name of names) {
    const owner = pattern.exec(name)?.[1];
    if (owner === undefined) continue;
    const left = path.join(folder, name);
    if (await isAbandoned(left, Number(owner))) await unlink(left).catch(() => {});
  }
}

/** Its process is no more; or has this one's id, as happens in containers, but was there before it. */
async function isAbandoned(file: string, owner: number): Promise<boolean> {
  if (owner !== process.pid) return !isRunning(owner);
  const started = Date.now() - 1000 * process.uptime();
  const stats = await stat(file).catch(() => undefined);
  return stats !== undefined && stats.mtimeMs < started;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}
