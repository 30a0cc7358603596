// Infini-attention of a segment as ONNX graphs, all heads at once, heads first: q, k and v are [1, heads, tokens, dim], the
// memory [1, heads, dim, dim], its normalizer [1, heads, dim, 1]. Two ways to attend: the operator Attention of opset 23, or
// MatMul, Softmax, MatMul behind a mask.

const { encodeModel } = require('./onnx_model.cjs');

const OPSET = 23;

const node = (type, inputs, output, attributes) => ({ type, inputs, outputs: [output], attributes });
const number = (value) => ({ dims: [], data: Float32Array.of(value) });
const shape = (...dims) => ({ dims: [dims.length], data: BigInt64Array.from(dims, BigInt) });
const turned = (input, output) => node('Transpose', [input], output, { perm: { ints: [0, 1, 3, 2] } });

/** sigma(x) = ELU(x) + 1 */
const sigma = (input, output) => [
  node('Elu', [input], `${input} elu`),
  node('Add', [`${input} elu`, 'one'], output),
];

const read = (rows, output) => [
  node('MatMul', [rows, 'memory'], `${output} sum`),
  node('MatMul', [rows, 'normalizer'], `${output} weight`),
  node('Div', [`${output} sum`, `${output} weight`], output),
];

const absorb = (rule) => [
  ...sigma('k', 'rows'),
  ...(rule === 'delta' ? [...read('rows', 'known'), node('Sub', ['v', 'known'], 'rest')] : []),
  turned('rows', 'columns'),
  node('MatMul', ['columns', rule === 'delta' ? 'rest' : 'v'], 'gain'),
  node('Add', ['memory', 'gain'], 'next memory'),
  node('ReduceSum', ['columns', 'last'], 'mass'),
  node('Add', ['normalizer', 'mass'], 'next normalizer'),
];

/** Half retrieved, half local. */
const mixed = [
  ...sigma('q', 'queries'),
  ...read('queries', 'retrieved'),
  node('Add', ['local', 'retrieved'], 'both'),
  node('Mul', ['both', 'half'], 'out'),
];

const products = [
  node('Mul', ['q', 'scale'], 'scaled'),
  turned('k', 'keys'),
  node('MatMul', ['scaled', 'keys'], 'scores'),
  node('Add', ['scores', 'mask'], 'masked'),
  node('Softmax', ['masked'], 'weights', { axis: { int: -1 } }),
  node('MatMul', ['weights', 'v'], 'local'),
];

/** Tokens first, [1, tokens, heads * dim]: what is cached so far is then one piece of memory, and nothing is copied. */
const packed = (heads) => [
  node('Reshape', ['q', 'packed shape'], 'packed'),
  node('Attention', ['packed', 'k', 'v'], 'attended', {
    q_num_heads: { int: heads },
    kv_num_heads: { int: heads },
  }),
  node('Reshape', ['attended', 'token shape'], 'local'),
];

function causalMask(tokens) {
  const data = new Float32Array(tokens * tokens);
  for (let row = 0; row < tokens; row++)
    data.fill(Number.NEGATIVE_INFINITY, row * tokens + row + 1, (row + 1) * tokens);
  return { dims: [tokens, tokens], data };
}

/**
 * Models of a case, as bytes. whole: a segment's outputs and the next memory; state: the next memory alone; token: one
 * token's output. With the operator Attention, token takes k and v as `packed` says; without, the whole window, and
 * a mask [1, 1, 1, segment] that hides what has not come.
 */
function models({ heads, headDim, segment, rule }, withOperator) {
  const rows = [1, heads, segment, headDim];
  const row = [1, heads, 1, headDim];
  const state = { memory: [1, heads, headDim, headDim], normalizer: [1, heads, headDim, 1] };
  const next = { 'next memory': state.memory, 'next normalizer': state.normalizer };
  const constants = { one: number(1), half: number(0.5), last: shape(3), scale: number(headDim ** -0.5) };
  const cached = withOperator ? [1, 'tokens', heads * headDim] : rows;
  const causal = [node('Attention', ['q', 'k', 'v'], 'local', { is_causal: { int: 1 } })];
  return {
    whole: () =>
      encodeModel({
        opset: OPSET,
        nodes: [...(withOperator ? causal : products), ...mixed, ...absorb(rule)],
        inputs: { q: rows, k: rows, v: rows, ...state },
        outputs: { out: rows, ...next },
        constants: withOperator ? constants : { ...constants, mask: causalMask(segment) },
      }),
    state: () =>
      encodeModel({
        opset: OPSET,
        nodes: absorb(rule),
        inputs: { k: rows, v: rows, ...state },
        outputs: next,
        constants,
      }),
    token: () =>
      encodeModel({
        opset: OPSET,
        nodes: [...(withOperator ? packed(heads) : products), ...mixed],
        inputs: {
          q: row,
          k: cached,
          v: cached,
          ...(!withOperator && { mask: [1, 1, 1, segment] }),
          ...state,
        },
        outputs: { out: row },
        constants: {
          ...constants,
          'packed shape': shape(1, 1, heads * headDim),
          'token shape': shape(...row),
        },
      }),
  };
}

module.exports = { models };
