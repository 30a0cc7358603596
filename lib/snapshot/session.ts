import { readConfig } from '../config';
import { describe, mismatch } from '../errors';
import { newLogits } from '../model/arrays';
import type { ModelConfig } from '../model/config';
import { checkModelOpen, inTurn, type ModelCore, SessionCore } from '../model/session-core';
import { type NativeStream, native } from '../native';
import { readObject, readTokens } from './facts';
import { type Layout, layOut, refuse } from './format';
import { readSnapshot } from './read';
import { makeFrom } from './stream';
import { draft } from './write';

/** One stream per layer, and the logits after the last token, if there is one. */
export async function snapshotSession(session: SessionCore): Promise<Uint8Array> {
  session.checkOpen();
  const file = await inTurn([session], undefined, async (interruption) => {
    const { model, tokens, streams, logits } = session;
    const layout = layoutOf(model, tokens);
    const facts = { tokens: `${tokens}`, model: modelText(model.config), gates: gatesText(model) };
    const made = draft('session', facts, layout);
    for (const [i, stream] of streams.entries()) {
      const { begin, end } = layout.images[i];
      const { segmentLength } = native.streamConfig(stream);
      await interruption.wait(copyImage(stream, tokens % segmentLength, made.data.subarray(begin, end)));
    }
    if (logits) made.data.set(bytesOf(logits), layout.tensors.get('logits')?.begin);
    return made;
  });
  return file.seal();
}

const copyImage = (stream: NativeStream, open: number, target: Uint8Array): Promise<void> =>
  new Promise((resolve, reject) => {
    native.snapshot(stream, open, (error) => {
      try {
        if (error) throw error;
        native.take(target);
        resolve();
      } catch (failure) {
        reject(failure);
      }
    });
  });

/** A new session of this model from a file that nobody else writes to. */
export async function restoreSession(model: ModelCore, file: Uint8Array<ArrayBuffer>): Promise<SessionCore> {
  const snapshot = await readSnapshot(file, 'session');
  const tokens = readTokens(snapshot.facts.tokens);
  checkModel(snapshot.facts.model, model.config);
  if (snapshot.facts.gates !== gatesText(model))
    throw refuse("expected this model's gates in the metadata but received other ones: it is another model");
  const layout = layoutOf(model, tokens);
  snapshot.expect(layout);
  const logits = readLogits(snapshot.data, layout);
  checkModelOpen(model);
  const streams: NativeStream[] = [];
  try {
    for (const [i, layer] of model.layers.entries()) {
      const { begin, end } = layout.images[i];
      const image = snapshot.data.subarray(begin, end);
      streams.push(await makeFrom(model.device, { given: readConfig(layer), tokens, image }));
    }
    checkModelOpen(model);
  } catch (error) {
    for (const stream of streams) native.closeStream(stream);
    throw error;
  }
  const session = new SessionCore(model, streams);
  session.tokens = tokens;
  session.logits = logits;
  return session;
}

function layoutOf({ config, layers }: ModelCore, tokens: number): Layout {
  const { kvHeads, headDim, segmentLength, vocabulary } = config;
  const shape = { kvHeads, headDim, valueDim: headDim, segmentLength, dtype: 'float32' } as const;
  const parts = layers.map((_, i) => ({ prefix: `layers.${i}.`, shape, tokens }));
  return layOut(parts, tokens > 0 ? vocabulary : 0);
}

function readLogits(data: Uint8Array<ArrayBuffer>, layout: Layout): Float32Array | undefined {
  const place = layout.tensors.get('logits');
  if (!place) return undefined;
  const logits = newLogits(place.shape[0]);
  bytesOf(logits).set(data.subarray(place.begin, place.end));
  const bad = logits.findIndex((logit) => !Number.isFinite(logit));
  if (bad < 0) return logits;
  throw refuse(mismatch('finite numbers', 'tensor "logits"', logits[bad], `at index ${bad}`));
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

/** The one text of a model's configuration. */
const modelText = (config: ModelConfig): string => JSON.stringify(config, Object.keys(config).sort());

const gatesText = ({ layers }: ModelCore): string => JSON.stringify(layers.map(({ gate }) => gate));

function checkModel(text: string, config: ModelConfig): void {
  if (text === modelText(config)) return;
  const given = readObject(text, '"model" of the metadata');
  for (const [key, value] of Object.entries(config)) {
    if (given.get(key) === value) continue;
    throw refuse(mismatch(`${describe(value)}, as in this model,`, `"${key}" of its model`, given.get(key)));
  }
  throw refuse(mismatch('the one text that this model has', '"model" of the metadata', text));
}
