import { fail, quote } from '../errors';
import type { EmptyRead, Rule } from '../types';
import { isRecord, type Json, parseObject, wrong } from './defects';

/** silu(x) = x sigmoid(x); gelu(x) = x Phi(x); gelu_tanh is its approximation by tanh. */
export type Activation = 'silu' | 'gelu' | 'gelu_tanh';

/** What a model's config.json says, checked and with every default filled in. */
export interface ModelConfig {
  readonly vocabulary: number;
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly mlpWidth: number;
  readonly activation: Activation;
  readonly normEpsilon: number;
  readonly ropeTheta: number;
  /** Whether the head's matrix is the embedding's. */
  readonly tied: boolean;
  readonly segmentLength: number;
  readonly rule: Rule;
  readonly emptyRead: EmptyRead;
}

// By the names that transformers has for them. A Map: a file may name anything, "constructor" too.
const activations = new Map<unknown, Activation>([
  ['silu', 'silu'],
  ['swish', 'silu'],
  ['gelu', 'gelu'],
  ['gelu_new', 'gelu_tanh'],
  ['gelu_pytorch_tanh', 'gelu_tanh'],
  ['gelu_fast', 'gelu_tanh'],
]);

const infiniKeys = ['segment_length', 'rule', 'empty_read'];

/** Reads the text of a config.json as Hugging Face writes it for Llama, with an object `infini` beside the rest. */
export function readModelConfig(text: string, name: string): ModelConfig {
  const given = parseObject(text, name);
  refuseOtherModels(given, name);

  const whole = (key: string, most: number, fallback?: number) =>
    isAbsent(given[key]) && fallback !== undefined ? fallback : readInteger(given[key], most, name, key);
  const width = whole('hidden_size', 2 ** 20);
  const heads = whole('num_attention_heads', 1024);
  const kvHeads = whole('num_key_value_heads', 1024, heads);
  if (heads % kvHeads !== 0) {
    throw wrong(name, `a divisor of "num_attention_heads" (${heads})`, '"num_key_value_heads"', kvHeads);
  }
  return Object.freeze({
    vocabulary: whole('vocab_size', 2 ** 24),
    width,
    layers: whole('num_hidden_layers', 1024),
    heads,
    kvHeads,
    headDim: readHeadDim(given.head_dim, width, heads, name),
    mlpWidth: whole('intermediate_size', 2 ** 20),
    activation: readActivation(given.hidden_act, name),
    normEpsilon: readPositive(given.rms_norm_eps, 1e-6, name, 'rms_norm_eps'),
    ropeTheta: readTheta(given, name),
    tied: readBoolean(given.tie_word_embeddings, name, 'tie_word_embeddings'),
    ...readInfini(given.infini, name),
  });
}

function readHeadDim(value: unknown, width: number, heads: number, name: string): number {
  const derived = isAbsent(value);
  if (derived && width % heads !== 0) {
    const what = `a multiple of "num_attention_heads" (${heads})`;
    throw wrong(name, what, '"hidden_size"', width, 'or give "head_dim"');
  }
  const headDim = derived ? width / heads : value;
  if (isInteger(headDim, 2, 256) && headDim % 2 === 0) return headDim;
  const place = derived ? '"hidden_size" / "num_attention_heads"' : '"head_dim"';
  throw wrong(name, 'an even integer from 2 to 256', place, headDim);
}

function readActivation(value: unknown, name: string): Activation {
  if (isAbsent(value)) return 'silu'; // as transformers' LlamaConfig
  const activation = activations.get(value);
  if (activation !== undefined) return activation;
  throw wrong(name, [...activations.keys()].map((one) => `'${one}'`).join(' or '), '"hidden_act"', value);
}

/** transformers up to 4 writes `rope_theta`, later ones `rope_parameters: { rope_type, rope_theta }`. */
function readTheta(given: Json, name: string): number {
  const thetas: [unknown, string][] = [[given.rope_theta, 'rope_theta']];
  for (const key of ['rope_parameters', 'rope_scaling']) {
    const rope = given[key];
    if (isNothing(rope)) continue;
    if (!isRecord(rope)) throw wrong(name, "an object with rope_type 'default'", `"${key}"`, rope);
    const types = ['rope_type', 'type'].filter((one) => !isAbsent(rope[one]));
    const other = types.length === 0 ? 'rope_type' : types.find((one) => rope[one] !== 'default');
    if (other !== undefined) {
      const why = 'positions restart in every segment and are not scaled';
      throw wrong(name, "'default'", `"${key}.${other}"`, rope[other], why);
    }
    checkRotaryFactor(rope.partial_rotary_factor, name, `${key}.partial_rotary_factor`);
    thetas.push([rope.rope_theta, `${key}.rope_theta`]);
  }
  const [[first, firstKey] = [undefined, 'rope_theta'], ...others] = thetas.filter(([one]) => !isAbsent(one));
  const theta = readPositive(first, 10000, name, firstKey);
  for (const [value, key] of others) {
    if (value !== theta) throw wrong(name, `${theta}, as for "${firstKey}",`, `"${key}"`, value);
  }
  return theta;
}

function readInfini(value: unknown, name: string): Pick<ModelConfig, 'segmentLength' | 'rule' | 'emptyRead'> {
  if (!isRecord(value)) {
    const what =
      'an object that says how the model was trained, such as {"segment_length": 2048, "rule": "delta"},';
    throw wrong(name, what, '"infini"', value);
  }
  for (const key of Object.keys(value)) {
    if (!infiniKeys.includes(key)) {
      const known = infiniKeys.map((one) => `'${one}'`).join(', ');
      throw fail(
        'ERR_MODEL',
        `${name}: expected only the keys ${known} in "infini" but received ${quote(key)}`,
      );
    }
  }
  const emptyRead = isAbsent(value.empty_read) ? 'gated' : value.empty_read;
  return {
    segmentLength: readInteger(value.segment_length, 65536, name, 'infini.segment_length'),
    rule: readChoice<Rule>(value.rule, ['linear', 'delta'], name, 'infini.rule'),
    emptyRead: readChoice<EmptyRead>(emptyRead, ['gated', 'local'], name, 'infini.empty_read'),
  };
}

/** Keys that would change the mathematics are refused: a model that runs as another one is worse than an error. */
function refuseOtherModels(given: Json, name: string): void {
  const { model_type, pretraining_tp } = given;
  if (!isAbsent(model_type) && model_type !== 'llama')
    throw wrong(name, "'llama'", '"model_type"', model_type);
  const unsupported = {
    attention_bias: 'projections have no bias here',
    mlp_bias: 'projections have no bias here',
    quantization_config: 'quantized weights are not read',
    sliding_window: 'attention is local to a segment; "infini.segment_length" is its length',
  };
  for (const [key, why] of Object.entries(unsupported)) {
    if (!isNothing(given[key])) throw wrong(name, 'null or false', `"${key}"`, given[key], why);
  }
  checkRotaryFactor(given.partial_rotary_factor, name, 'partial_rotary_factor');
  if (!isAbsent(pretraining_tp) && !(typeof pretraining_tp === 'number' && pretraining_tp <= 1)) {
    const why = 'products are not cut into slices, which round differently';
    throw wrong(name, '1', '"pretraining_tp"', pretraining_tp, why);
  }
}

function checkRotaryFactor(value: unknown, name: string, key: string): void {
  if (isAbsent(value) || value === 1) return;
  throw wrong(name, '1', `"${key}"`, value, 'all of a head rotates');
}

/** Hugging Face writes null for what is not set. */
const isAbsent = (value: unknown): value is null | undefined => value === undefined || value === null;
const isNothing = (value: unknown): boolean => isAbsent(value) || value === false;

const isInteger = (value: unknown, least: number, most: number): value is number =>
  Number.isInteger(value) && (value as number) >= least && (value as number) <= most;

function readInteger(value: unknown, most: number, name: string, key: string): number {
  if (isInteger(value, 1, most)) return value;
  throw wrong(name, `an integer from 1 to ${most}`, `"${key}"`, value);
}

function readPositive(value: unknown, fallback: number, name: string, key: string): number {
  if (isAbsent(value)) return fallback;
  if (typeof value === 'number' && value > 0 && value < Number.POSITIVE_INFINITY) return value;
  throw wrong(name, 'a finite number above 0', `"${key}"`, value);
}

function readBoolean(value: unknown, name: string, key: string): boolean {
  if (isAbsent(value)) return false;
  if (typeof value === 'boolean') return value;
  throw wrong(name, 'true or false', `"${key}"`, value);
}

function readChoice<T extends string>(value: unknown, choices: readonly T[], name: string, key: string): T {
  if (choices.includes(value as T)) return value as T;
  throw wrong(name, choices.map((one) => `'${one}'`).join(' or '), `"${key}"`, value);
}
