import { type NativeConfig, type NativeDevice, type NativeStream, native } from '../native';
import type { Span } from '../shared-memory';
import type { StreamCore } from '../stream-core';
import type { ResolvedConfig } from '../types';
import { asSnapshotError, configText, readConfigText, readTokens } from './facts';
import { layOut } from './format';
import { readSnapshot } from './read';
import { type Draft, draft } from './write';

/** Everything up to the first await happens before this returns: the call has its place in the stream's order. */
export async function snapshotStream(core: StreamCore): Promise<Uint8Array> {
  core.checkOpen();
  const file = await new Promise<Draft>((resolve, reject) => {
    native.snapshot(core.native, core.mostOpen, (error, tokens) => {
      core.end();
      try {
        if (error) throw error;
        core.committed(tokens);
        const made = draftOf(core.config, tokens);
        native.take(made.data);
        resolve(made);
      } catch (failure) {
        reject(failure);
      }
    });
    core.begin();
  });
  return file.seal();
}

/** The file of a stream, its image to come. */
export function draftOf(config: ResolvedConfig, tokens: number): Draft {
  const layout = layOut([{ prefix: '', shape: config, tokens }]);
  return draft('stream', { tokens: `${tokens}`, config: configText(config) }, layout);
}

/** What a file that nobody else writes to says; whether its image can be a stream's is for native code to find. */
export interface StreamFile {
  readonly given: NativeConfig;
  readonly tokens: number;
  readonly image: Uint8Array;
}

export async function readStreamFile(file: Uint8Array<ArrayBuffer>): Promise<StreamFile> {
  const snapshot = await readSnapshot(file, 'stream');
  const tokens = readTokens(snapshot.facts.tokens);
  const { config, given } = readConfigText(snapshot.facts.config);
  const layout = layOut([{ prefix: '', shape: config, tokens }]);
  snapshot.expect(layout);
  const { begin, end } = layout.images[0] as Span;
  return { given, tokens, image: snapshot.data.subarray(begin, end) };
}

/** A new stream of this device, made on another thread: nobody writes to the image meanwhile. */
export function makeFrom(device: NativeDevice, { given, tokens, image }: StreamFile): Promise<NativeStream> {
  return new Promise<NativeStream>((resolve, reject) =>
    native.restoreStreamLater(device, given, tokens, image, (error, stream) =>
      error ? reject(error) : resolve(stream as NativeStream),
    ),
  ).catch((error) => Promise.reject(asSnapshotError(error)));
}

export async function restoreStream(
  device: NativeDevice,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<{ stream: NativeStream; tokens: number }> {
  const file = await readStreamFile(bytes);
  return { stream: await makeFrom(device, file), tokens: file.tokens };
}
