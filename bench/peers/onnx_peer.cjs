// onnxruntime-node beside infini-stream: a warm worker that a benchmark asks, line by line, over stdin, as cpu_peers.py.
// It is no dependency of the package: npm install --no-save --ignore-scripts onnxruntime-node@1.30.0
//
// Two peers, as onnx_graphs.cjs says. Inputs lie as the graphs want them, in memory that onnxruntime reads in place; outputs go
// to tensors allocated before.

const { createInterface } = require('node:readline');
const { models } = require('./onnx_graphs.cjs');
const { noise } = require('../../dist/cli/bench/input.js');
const { absorbed, outputOf, relativeError } = require('../../dist/cli/bench/reference.js');

const LIMIT = 1e-4; // of the norm
const INSTALL = 'npm install --no-save --ignore-scripts onnxruntime-node@1.30.0';
const PEERS = { 'onnxruntime Attention': true, 'onnxruntime MatMul': false };
const WORKS = ['prefill', 'decode', 'state', 'batch', 'step'];

function load() {
  try {
    return require('onnxruntime-node');
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') throw error;
    throw new Error(`onnxruntime-node is not installed: ${INSTALL}`);
  }
}

class Peer {
  static async open(asked) {
    if (asked.dtype !== 'float32') throw new Error(`its graphs are not written in ${asked.dtype}`);
    const peer = new Peer(asked);
    await peer.#compile();
    return peer;
  }

  #ort = load();
  #sessions = {};
  /** What is read, and what is written: they change places after each segment. */
  #states;

  constructor(asked) {
    const { heads, headDim, segment, segments, peer } = asked;
    this.asked = asked;
    this.withOperator = PEERS[peer];
    this.shape = [1, heads, segment, headDim];
    const size = heads * segment * headDim;
    const make = (seed) => {
      const all = noise(segments * size, seed);
      return Array.from({ length: segments }, (_, i) => all.subarray(i * size, (i + 1) * size));
    };
    this.rows = { q: make(1), k: make(2 ** 30), v: make(2 ** 31) };
    this.outputs = this.rows.q.map((rows) => new Float32Array(rows.length));
    const state = () => ({
      memory: this.tensor(new Float32Array(heads * headDim ** 2), [1, heads, headDim, headDim]),
      normalizer: this.tensor(new Float32Array(heads * headDim).fill(1e-6), [1, heads, headDim, 1]),
    });
    this.#states = [state(), state()];
    if (asked.work === 'decode') this.#prepareTokens();
  }

  tensor(data, dims) {
    return new this.#ort.Tensor('float32', data, dims);
  }

  async #compile() {
    const made = models(this.asked, this.withOperator);
    const wanted = { prefill: ['whole'], state: ['state'], decode: ['token', 'state'] }[this.asked.work];
    const options = {
      intraOpNumThreads: this.asked.threads,
      interOpNumThreads: 1,
      executionMode: 'sequential',
    };
    for (const name of wanted)
      this.#sessions[name] = await this.#ort.InferenceSession.create(made[name](), options);
  }

  #next() {
    const { memory, normalizer } = this.#states[1];
    return { 'next memory': memory, 'next normalizer': normalizer };
  }

  async prefill() {
    for (const [i, q] of this.rows.q.entries()) {
      const [q4, k, v] = [q, this.rows.k[i], this.rows.v[i]].map((rows) => this.tensor(rows, this.shape));
      const out = this.tensor(this.outputs[i], this.shape);
      await this.#sessions.whole.run({ q: q4, k, v, ...this.#states[0] }, { out, ...this.#next() });
      this.#states.reverse();
    }
    return this.rows.q.length * this.asked.segment;
  }

  async state() {
    for (const [i, rows] of this.rows.k.entries()) {
      const [k, v] = [rows, this.rows.v[i]].map((one) => this.tensor(one, this.shape));
      await this.#sessions.state.run({ k, v, ...this.#states[0] }, this.#next());
      this.#states.reverse();
    }
    return this.rows.k.length * this.asked.segment;
  }

  /**
   * Queries and outputs of one token each, and what is cached when it comes: with the operator Attention as much of a
   * buffer of tokens as there is; without, the whole window heads first, behind a mask that opens token by token.
   */
  #prepareTokens() {
    const { heads, headDim, segment } = this.asked;
    const width = heads * headDim;
    const tokensFirst = (rows) => {
      const turned = new Float32Array(rows.length);
      for (let i = 0; i < rows.length; i++) {
        const [head, token] = [Math.floor(i / headDim / segment), Math.floor(i / headDim) % segment];
        turned[token * width + head * headDim + (i % headDim)] = rows[i];
      }
      return turned;
    };
    const [q, k, v] = [this.rows.q[0], this.rows.k[0], this.rows.v[0]];
    const packed = {
      q: tokensFirst(q),
      k: tokensFirst(k),
      v: tokensFirst(v),
      out: new Float32Array(q.length),
    };
    this.mask = this.tensor(new Float32Array(segment), [1, 1, 1, segment]);
    const window = { k: this.tensor(k, this.shape), v: this.tensor(v, this.shape), mask: this.mask };
    this.tokens = Array.from({ length: segment }, (_, t) => {
      const row = (rows) => this.tensor(rows.subarray(t * width, (t + 1) * width), [1, heads, 1, headDim]);
      const seen = (rows) => this.tensor(rows.subarray(0, (t + 1) * width), [1, t + 1, width]);
      const cached = this.withOperator ? { k: seen(packed.k), v: seen(packed.v) } : window;
      return { feeds: { q: row(packed.q), ...cached }, out: row(packed.out) };
    });
  }

  async decode() {
    this.mask.data.fill(Number.NEGATIVE_INFINITY);
    for (const [t, { feeds, out }] of this.tokens.entries()) {
      this.mask.data[t] = 0;
      await this.#sessions.token.run({ ...feeds, ...this.#states[0] }, { out });
    }
    return this.state();
  }

  /** Of head 0 in a first segment that finds a memory, against float64. */
  async error() {
    const { headDim, segment, work } = this.asked;
    const ofHead = ({ memory, normalizer }) => ({
      matrix: Float64Array.from(memory.data.subarray(0, headDim ** 2)),
      normalizer: Float64Array.from(normalizer.data.subarray(0, headDim)),
    });
    const rows = (all) => all[0].subarray(0, segment * headDim);
    const { q, k, v } = this.rows;
    const before = { q: rows(q), k: rows(k), v: rows(v), ...ofHead(this.#states[0]) };
    // The first segment alone: its outputs, and what it makes of the memory.
    const all = this.rows;
    this.rows = { q: q.slice(0, 1), k: k.slice(0, 1), v: v.slice(0, 1) };
    await this[work]();
    this.rows = all;
    const after = ofHead(this.#states[0]);
    const wanted = absorbed(before, this.asked);
    const gain = (name, from) => from[name].map((x, i) => x - before[name][i]);
    const errors = ['matrix', 'normalizer'].map((name) =>
      relativeError(gain(name, after), gain(name, wanted)),
    );
    const sampled =
      work === 'state' ? [] : new Set([0, 1, segment >> 1, segment - 1].filter((t) => t < segment));
    for (const token of sampled) {
      const out =
        work === 'decode'
          ? this.tokens[token].out.data.subarray(0, headDim)
          : this.outputs[0].subarray(token * headDim, (token + 1) * headDim);
      errors.push(relativeError(out, outputOf(before, this.asked, token)));
    }
    return Math.max(...errors);
  }
}

async function prepare(asked) {
  const peer = await Peer.open(asked);
  await peer[asked.work](); // fills the memory
  const error = await peer.error();
  if (!(error <= LIMIT)) throw new Error(`its result is wrong: ${error.toExponential(1)} from float64`);
  return { peer, error };
}

async function main() {
  let peer;
  const answer = async (asked) => {
    if (asked.offers) return { offers: Object.keys(PEERS).map((name) => ({ name, works: WORKS })) };
    if (asked.run) {
      const start = performance.now();
      const tokens = await peer[peer.asked.work]();
      return { seconds: (performance.now() - start) / 1000, tokens };
    }
    try {
      const made = await prepare(asked);
      peer = made.peer;
      return { ready: true, error: made.error, bytes: null };
    } catch (error) {
      return { skipped: error.message.split('\n')[0] };
    }
  };
  for await (const line of createInterface({ input: process.stdin }))
    console.log(JSON.stringify(await answer(JSON.parse(line))));
}

main();
