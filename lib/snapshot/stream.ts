import { type NativeDevice, type NativeStream, native } from '../native';
import type { Span } from '../shared-memory';
import type { StreamCore } from '../stream-core';
import { asSnapshotErrors, configText, readConfigText, readTokens } from './facts';
import { layOut } from './format';
import { readSnapshot } from './read';
import { type Draft, draft } from './write';

/** Everything up to the first await happens before this returns: the call has its place in the stream's order. */
export async function snapshotStream(core: StreamCore): Promise<Uint8Array> {
  core.checkOpen();
  const file = await new Promise<Draft>((resolve, reject) => {
    native.snapshot(core.native, (error, tokens) => {
      core.end();
      try {
        if (error) throw error;
        core.committed(tokens);
        const layout = layOut([{ prefix: '', shape: core.config, tokens }]);
        const made = draft('stream', { tokens: `${tokens}`, config: configText(core.config) }, layout);
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

/** A new stream of this device from a file that nobody else writes to. */
export async function restoreStream(
  device: NativeDevice,
  file: Uint8Array<ArrayBuffer>,
): Promise<{ stream: NativeStream; tokens: number }> {
  const snapshot = await readSnapshot(file, 'stream');
  const tokens = readTokens(snapshot.facts.tokens);
  const { config, given } = readConfigText(snapshot.facts.config);
  const layout = layOut([{ prefix: '', shape: config, tokens }]);
  snapshot.expect(layout);
  const { begin, end } = layout.images[0] as Span;
  const image = snapshot.data.subarray(begin, end);
  return { stream: asSnapshotErrors(() => native.restoreStream(device, given, tokens, image)), tokens };
}
