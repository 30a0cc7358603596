import type { TinyModel } from '../support/tiny-model';
import { ReferenceStream } from './reference-stream';

/** Llama's decoder with Infini-attention in float64: one token after the other, as the formulas say. */
export class ReferenceDecoder {
  readonly #streams: ReferenceStream[];
  readonly #get: (name: string) => Float64Array;
  readonly #shape: (name: string) => number[];
  readonly #model: TinyModel;
  readonly #config: Record<string, unknown>;

  constructor(model: TinyModel) {
    const { config, weights, shapes } = model;
    this.#model = model;
    const find =
      <T>(map: Map<string, T>) =>
      (name: string): T => {
        const found = map.get(name);
        if (!found) throw new Error(`no ${name}`);
        return found;
      };
    this.#get = find(weights);
    this.#shape = find(shapes);
    this.#config = config;
    const infini = config.infini as { segment_length: number; rule: 'linear'; empty_read: 'gated' };
    this.#streams = Array.from(
      { length: config.num_hidden_layers as number },
      (_, layer) =>
        new ReferenceStream({
          heads: config.num_attention_heads as number,
          kvHeads: config.num_key_value_heads as number,
          headDim: config.head_dim as number,
          segmentLength: infini.segment_length,
          rule: infini.rule,
          emptyRead: infini.empty_read,
          rope: { theta: config.rope_theta as number },
          gate: Array.from(this.#get(`model.layers.${layer}.self_attn.gate`)),
        }),
    );
  }

  /** W x. */
  #linear(name: string, x: Float64Array): Float64Array {
    const [rows, columns] = this.#shape(name) as [number, number];
    const weights = this.#get(name);
    return Float64Array.from({ length: rows }, (_, row) => {
      let sum = 0;
      for (let i = 0; i < columns; i++) sum += (weights[row * columns + i] as number) * (x[i] as number);
      return sum;
    });
  }

  #norm(name: string, x: Float64Array): Float64Array {
    const weights = this.#get(name);
    const mean = x.reduce((sum, value) => sum + value * value, 0) / x.length;
    const factor = 1 / Math.sqrt(mean + (this.#config.rms_norm_eps as number));
    return x.map((value, i) => value * factor * (weights[i] as number));
  }

  #activate(x: Float64Array): Float64Array {
    switch (this.#config.hidden_act) {
      case 'silu':
        return x.map((value) => value / (1 + Math.exp(-value)));
      case 'gelu':
        return x.map((value) => 0.5 * value * (1 + erf(value / Math.SQRT2)));
      default:
        return x.map(
          (value) => 0.5 * value * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3))),
        );
    }
  }

  /** The logits after this token. */
  next(token: number): Float64Array {
    const width = this.#config.hidden_size as number;
    const embedding = this.#get('model.embed_tokens.weight');
    let x = Float64Array.from(embedding.subarray(token * width, (token + 1) * width));
    const add = (y: Float64Array) => x.map((value, i) => value + (y[i] as number));
    for (const [layer, stream] of this.#streams.entries()) {
      const at = (name: string) => `model.layers.${layer}.${name}.weight`;
      const normal = this.#norm(at('input_layernorm'), x);
      const { output } = stream.attend({
        q: this.#linear(at('self_attn.q_proj'), normal),
        k: this.#linear(at('self_attn.k_proj'), normal),
        v: this.#linear(at('self_attn.v_proj'), normal),
      });
      x = add(this.#linear(at('self_attn.o_proj'), output));
      const inner = this.#norm(at('post_attention_layernorm'), x);
      const up = this.#linear(at('mlp.up_proj'), inner);
      const gated = this.#model.weights.has(at('mlp.gate_proj'))
        ? this.#activate(this.#linear(at('mlp.gate_proj'), inner)).map(
            (value, i) => value * (up[i] as number),
          )
        : this.#activate(up);
      x = add(this.#linear(at('mlp.down_proj'), gated));
    }
    const head = this.#config.tie_word_embeddings ? 'model.embed_tokens.weight' : 'lm_head.weight';
    return this.#linear(head, this.#norm('model.norm.weight', x));
  }
}

/** By its Taylor series, to 1e-10; beyond 4 it is within 2e-8 of 1. */
export function erf(x: number): number {
  if (Math.abs(x) > 4) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum) && n < 400; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}
