import type { FileHandle } from 'node:fs/promises';
import { fail, quote } from '../errors';
import type { StoredTensor } from '../safetensors/parser';
import type { DType } from '../types';
import type { ModelConfig } from './config';
import { wrong } from './defects';
import { readBytes } from './safetensors';

export type WeightKind =
  | 'embedding'
  | 'attentionNorm'
  | 'query'
  | 'key'
  | 'value'
  | 'output'
  | 'mlpNorm'
  | 'mlpGate'
  | 'mlpUp'
  | 'mlpDown'
  | 'finalNorm'
  | 'head';

/** A tensor of one of a model's files. */
export interface ModelTensor extends StoredTensor {
  /** The open file's descriptor. */
  file: number;
  fileName: string;
}

/** What native code loads: a row-major matrix in a file. A norm is one row. */
export interface NativeWeight {
  kind: WeightKind;
  /** 0 for the weights that belong to no layer. */
  layer: number;
  dtype: DType;
  /** The open file's descriptor. */
  file: number;
  fileName: string;
  /** Of its first byte, counted from the beginning of the file. */
  begin: number;
  rows: number;
  columns: number;
}

export interface ModelWeights {
  weights: NativeWeight[];
  /** beta of eq. (10), one tensor `[heads]` per layer. */
  gates: ModelTensor[];
  /** Whether the MLP is down(act(gate(x)) * up(x)), not down(act(up(x))). */
  gated: boolean;
}

const dtypes = new Map<string, DType>([
  ['F32', 'float32'],
  ['BF16', 'bfloat16'],
  ['F16', 'float16'],
]);

const EMBEDDING = 'model.embed_tokens.weight';
const HEAD = 'lm_head.weight';
const layerName = (layer: number, rest: string) => `model.layers.${layer}.${rest}`;
const gateName = (layer: number) => layerName(layer, 'self_attn.gate');

/** Finds all that the configuration asks for by Llama's names, and refuses tensors beyond: they would be left unused. */
export function findWeights(config: ModelConfig, tensors: ReadonlyMap<string, ModelTensor>): ModelWeights {
  const { vocabulary, width, layers, heads, mlpWidth } = config;
  const queryWidth = heads * config.headDim;
  const keyWidth = config.kvHeads * config.headDim;
  const gated = tensors.has(layerName(0, 'mlp.gate_proj.weight'));
  const weights: NativeWeight[] = [];
  const gates: ModelTensor[] = [];
  const used = new Set<string>();

  const take = (name: string, shape: number[], hint?: string): ModelTensor => {
    used.add(name);
    return checked(name, tensors.get(name), shape, hint);
  };
  const add = (kind: WeightKind, layer: number, tensor: ModelTensor, shape: number[]) => {
    const { file, fileName, begin } = tensor;
    const dtype = dtypes.get(tensor.dtype) as DType;
    const [rows, columns] = shape.length === 1 ? [1, shape[0]] : shape;
    weights.push({ kind, layer, dtype, file, fileName, begin, rows, columns });
  };

  const embedding = take(EMBEDDING, [vocabulary, width]);
  add('embedding', 0, embedding, [vocabulary, width]);
  for (let layer = 0; layer < layers; layer++) {
    const find = (kind: WeightKind, rest: string, ...shape: number[]) => {
      add(kind, layer, take(layerName(layer, `${rest}.weight`), shape), shape);
    };
    find('attentionNorm', 'input_layernorm', width);
    find('query', 'self_attn.q_proj', queryWidth, width);
    find('key', 'self_attn.k_proj', keyWidth, width);
    find('value', 'self_attn.v_proj', keyWidth, width);
    find('output', 'self_attn.o_proj', width, queryWidth);
    const hint = 'a Llama checkpoint has none: add one number per head to each layer, and train them';
    gates.push(take(gateName(layer), [heads], hint));
    find('mlpNorm', 'post_attention_layernorm', width);
    if (gated) find('mlpGate', 'mlp.gate_proj', mlpWidth, width);
    find('mlpUp', 'mlp.up_proj', mlpWidth, width);
    find('mlpDown', 'mlp.down_proj', width, mlpWidth);
  }
  const norm = take('model.norm.weight', [width]);
  add('finalNorm', 0, norm, [width]);
  const hint = 'it may be left out only where "tie_word_embeddings" is true';
  const head = config.tied ? embedding : take(HEAD, [vocabulary, width], hint);
  add('head', 0, head, [vocabulary, width]);

  for (const [name, { fileName }] of tensors) {
    if (used.has(name) || isIgnored(name)) continue;
    const what = `only the tensors of a Llama model of ${layers} layers without biases`;
    throw fail('ERR_MODEL', `${fileName}: expected ${what} but received ${quote(name)}`);
  }
  return { weights, gates, gated };
}

/** As transformers does: a tied head may be stored, and old checkpoints hold what follows from rope_theta. */
const isIgnored = (name: string): boolean => name === HEAD || name.endsWith('.rotary_emb.inv_freq');

function checked(name: string, tensor: ModelTensor | undefined, shape: number[], hint?: string): ModelTensor {
  const wanted = `[${shape.join(', ')}]`;
  if (tensor === undefined) {
    const reason = hint === undefined ? '' : ` (${hint})`;
    throw fail(
      'ERR_MODEL',
      `Expected tensor "${name}" ${wanted} in the model's files but received none${reason}`,
    );
  }
  if (!dtypes.has(tensor.dtype)) {
    throw wrong(tensor.fileName, 'F32, BF16 or F16', `the dtype of tensor "${name}"`, tensor.dtype);
  }
  if (tensor.shape.length !== shape.length || shape.some((size, i) => size !== tensor.shape[i])) {
    throw wrong(tensor.fileName, wanted, `the shape of tensor "${name}"`, tensor.shape);
  }
  return tensor;
}

/** The numbers of the gates: one row per layer, one number per query head. */
export async function readGates(
  gates: readonly ModelTensor[],
  handles: readonly FileHandle[],
): Promise<number[][]> {
  const files = new Map(handles.map((handle) => [handle.fd, handle]));
  const rows: number[][] = [];
  for (const { file, fileName, begin, end, dtype } of gates) {
    const name = gateName(rows.length);
    const bytes = await readBytes(files.get(file) as FileHandle, begin, end - begin, fileName);
    const row = decode(bytes, dtypes.get(dtype) as DType);
    const bad = row.findIndex((beta) => !Number.isFinite(beta));
    if (bad >= 0) throw wrong(fileName, 'finite numbers', `tensor "${name}"`, row[bad], `at index ${bad}`);
    rows.push(row);
  }
  return rows;
}

/** safetensors is little-endian, whatever the machine is. */
function decode(bytes: Buffer, dtype: DType): number[] {
  const length = bytes.length / (dtype === 'float32' ? 4 : 2);
  return Array.from({ length }, (_, i) => {
    if (dtype === 'float32') return bytes.readFloatLE(4 * i);
    const bits = bytes.readUInt16LE(2 * i);
    return dtype === 'float16' ? decodeFloat16(bits) : decodeBFloat16(bits);
  });
}

function decodeFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** The upper half of a float32. */
function decodeBFloat16(bits: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint16(0, bits);
  return view.getFloat32(0);
}
