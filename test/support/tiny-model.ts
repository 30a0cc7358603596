import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { types } from 'node:util';
import type { DType, EmptyRead, Rule } from '../../lib';
import type { Activation } from '../../lib/model/config';
import { Rng } from './rng';
import { bytesOf, makeTensor } from './tensors';

export interface TinyModelOptions {
  dtype?: DType;
  heads?: number;
  kvHeads?: number;
  headDim?: number;
  width?: number;
  mlpWidth?: number;
  layers?: number;
  vocabulary?: number;
  segmentLength?: number;
  rule?: Rule;
  emptyRead?: EmptyRead;
  activation?: Activation;
  normEpsilon?: number;
  ropeTheta?: number;
  /** Whether the head is the embedding. */
  tied?: boolean;
  /** Whether the MLP has a gate. */
  gated?: boolean;
  /** Files to spread the tensors over, beside an index; 0: one file without. */
  shards?: number;
  seed?: number;
}

export interface TinyModel {
  /** What config.json says. */
  config: Record<string, unknown>;
  /** Every tensor's numbers by name, row by row, as the dtype holds them. */
  weights: Map<string, Float64Array>;
  shapes: Map<string, number[]>;
}

const defaults: Required<TinyModelOptions> = {
  dtype: 'float32',
  heads: 4,
  kvHeads: 2,
  headDim: 4,
  width: 12,
  mlpWidth: 20,
  layers: 2,
  vocabulary: 24,
  segmentLength: 8,
  rule: 'delta',
  emptyRead: 'gated',
  activation: 'silu',
  normEpsilon: 1e-6,
  ropeTheta: 10000,
  tied: false,
  gated: true,
  shards: 0,
  seed: 1,
};

const hiddenActs: Record<Activation, string> = {
  silu: 'silu',
  gelu: 'gelu',
  gelu_tanh: 'gelu_pytorch_tanh',
};
const storedTypes: Record<DType, string> = { float32: 'F32', bfloat16: 'BF16', float16: 'F16' };

/** A small random model as Hugging Face lays one out, without a tokenizer. The same options give the same bytes. */
export async function writeTinyModel(directory: string, given: TinyModelOptions = {}): Promise<TinyModel> {
  const options = { ...defaults, ...given };
  const rng = new Rng(options.seed);
  const shapes = tensorShapes(options);
  const weights = new Map<string, Float64Array>();
  const stored = new Map<string, Stored>();
  for (const [name, shape] of shapes) {
    const { data, values } = makeTensor(options.dtype, drawTensor(name, shape, rng));
    weights.set(name, values);
    stored.set(name, { dtype: storedTypes[options.dtype], shape, bytes: bytesOf(data) });
  }
  const config = configJson(options);
  await mkdir(directory, { recursive: true });
  await writeFile(path.join(directory, 'config.json'), `${JSON.stringify(config, null, 2)}\n`);
  if (options.shards === 0) {
    await writeFile(path.join(directory, 'model.safetensors'), safetensors(stored, { format: 'pt' }));
  } else {
    await writeShards(directory, stored, options.shards);
  }
  return { config, weights, shapes };
}

function configJson(options: Required<TinyModelOptions>): Record<string, unknown> {
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    vocab_size: options.vocabulary,
    hidden_size: options.width,
    intermediate_size: options.mlpWidth,
    num_hidden_layers: options.layers,
    num_attention_heads: options.heads,
    num_key_value_heads: options.kvHeads,
    head_dim: options.headDim,
    hidden_act: hiddenActs[options.activation],
    rms_norm_eps: options.normEpsilon,
    rope_theta: options.ropeTheta,
    tie_word_embeddings: options.tied,
    infini: {
      segment_length: options.segmentLength,
      rule: options.rule,
      empty_read: options.emptyRead,
    },
  };
}

function tensorShapes(options: Required<TinyModelOptions>): Map<string, number[]> {
  const { vocabulary, width, mlpWidth, heads, kvHeads, headDim } = options;
  const shapes = new Map<string, number[]>([['model.embed_tokens.weight', [vocabulary, width]]]);
  for (let layer = 0; layer < options.layers; layer++) {
    const add = (name: string, ...shape: number[]) => shapes.set(`model.layers.${layer}.${name}`, shape);
    add('input_layernorm.weight', width);
    add('self_attn.q_proj.weight', heads * headDim, width);
    add('self_attn.k_proj.weight', kvHeads * headDim, width);
    add('self_attn.v_proj.weight', kvHeads * headDim, width);
    add('self_attn.o_proj.weight', width, heads * headDim);
    add('self_attn.gate', heads);
    add('post_attention_layernorm.weight', width);
    if (options.gated) add('mlp.gate_proj.weight', mlpWidth, width);
    add('mlp.up_proj.weight', mlpWidth, width);
    add('mlp.down_proj.weight', width, mlpWidth);
  }
  shapes.set('model.norm.weight', [width]);
  if (!options.tied) shapes.set('lm_head.weight', [vocabulary, width]);
  return shapes;
}

/** Activations stay near 1: norms near 1, rows of matrices of norm near 1. */
function drawTensor(name: string, shape: number[], rng: Rng): Float64Array {
  const length = shape.reduce((a, b) => a * b, 1);
  const isNorm = name.endsWith('norm.weight');
  const isGate = name.endsWith('self_attn.gate');
  const spread = shape.length === 1 || name.includes('embed') ? 1 : 1 / Math.sqrt(shape[1]);
  return Float64Array.from({ length }, () => {
    if (isNorm) return 1 + 0.1 * rng.normal();
    return isGate ? rng.normal() : spread * rng.normal();
  });
}

async function writeShards(directory: string, stored: Map<string, Stored>, count: number): Promise<void> {
  const map: Record<string, string> = {};
  const names = [...stored.keys()];
  const digits = (number: number) => String(number).padStart(5, '0');
  for (let shard = 0; shard < count; shard++) {
    const file = `model-${digits(shard + 1)}-of-${digits(count)}.safetensors`;
    const mine = names.filter((_, i) => i % count === shard);
    for (const name of mine) map[name] = file;
    const tensors = new Map(mine.map((name) => [name, stored.get(name) as Stored]));
    await writeFile(path.join(directory, file), safetensors(tensors, { format: 'pt' }));
  }
  const total = [...stored.values()].reduce((sum, { bytes }) => sum + bytes.length, 0);
  const index = { metadata: { total_size: total }, weight_map: map };
  await writeFile(path.join(directory, 'model.safetensors.index.json'), JSON.stringify(index, null, 2));
}

/** A tensor to write to a safetensors file. */
export interface Stored {
  dtype: string;
  shape: number[];
  bytes: Uint8Array;
}

/** A whole safetensors file. Like other writers', its header ends in spaces, so that the data begin at a multiple of 8. */
export function safetensors(
  tensors: ReadonlyMap<string, Stored>,
  metadata?: Record<string, string>,
): Buffer<ArrayBuffer> {
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {};
  let end = 0;
  for (const [name, { dtype, shape, bytes }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [end, end + bytes.length] };
    end += bytes.length;
  }
  const text = Buffer.from(JSON.stringify(header));
  const padding = Buffer.alloc(-text.length & 7, ' ');
  const data = [...tensors.values()].map(({ bytes }) => bytes);
  return withHeader(Buffer.concat([text, padding]), Buffer.concat(data));
}

/** A file of this header, whatever it says, and these data. */
export function withHeader(header: string | Uint8Array, data: Uint8Array): Buffer<ArrayBuffer> {
  const bytes = Buffer.from(header as string);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([length, bytes, data]);
}

/** The header's text and the data of a file as {@link withHeader} makes them. */
export function splitFile(file: Buffer): { header: string; data: Buffer } {
  const end = 8 + Number(file.readBigUInt64LE());
  return { header: file.toString('utf8', 8, end), data: file.subarray(end) };
}

/** The call must throw ERR_MODEL or reject with it, and the message must say all of this. */
export async function expectModelError(call: () => unknown, ...says: (string | RegExp)[]): Promise<void> {
  let error: unknown;
  try {
    await call();
  } catch (thrown) {
    error = thrown;
  }
  if (error === undefined) throw new Error(`the call succeeded; it should have said ${says.join(', ')}`);
  if (!types.isNativeError(error)) throw new Error(`not an Error: ${String(error)}`);
  const { name, message, code } = error as Error & { code?: string };
  if (code !== 'ERR_MODEL' || name !== 'Error') {
    throw new Error(`expected ERR_MODEL but got ${name} ${code}: ${message}`, { cause: error });
  }
  for (const part of says) {
    const said = typeof part === 'string' ? message.includes(part) : part.test(message);
    if (!said) throw new Error(`the message does not say ${part}: ${message}`);
  }
}
