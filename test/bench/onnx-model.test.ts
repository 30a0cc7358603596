// The bytes of ONNX models, read back field by field as protocol buffers say.

const { encodeModel } = require('../../bench/peers/onnx_model.cjs');
const { models } = require('../../bench/peers/onnx_graphs.cjs');

/** [field number, a varint as a number, or bytes] of a message. */
function fields(message: Buffer): [number, number | Buffer][] {
  const found: [number, number | Buffer][] = [];
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = message[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(BigInt.asIntN(64, value));
    }
  };
  while (at < message.length) {
    const key = varint();
    if ((key & 7) === 0) {
      found.push([key >> 3, varint()]);
    } else {
      const length = (key & 7) === 5 ? 4 : varint();
      if (at + length > message.length) throw new Error('a field goes beyond its message');
      found.push([key >> 3, message.subarray(at, at + length)]);
      at += length;
    }
  }
  return found;
}

const all = (message: Buffer, field: number) =>
  fields(message)
    .filter(([number]) => number === field)
    .map(([, value]) => value as Buffer);
const strings = (message: Buffer, field: number) => all(message, field).map(String);

test('a model of one node, to the byte', () => {
  const model: Buffer = encodeModel({
    opset: 23,
    nodes: [
      { type: 'Softmax', inputs: ['x'], outputs: ['y'], attributes: { axis: { int: -1 } } },
      { type: 'Add', inputs: ['y', 'c'], outputs: ['z'] },
    ],
    inputs: { x: [2, 'n'] },
    outputs: { z: [2, 'n'] },
    constants: {
      c: { dims: [2], data: Float32Array.of(1, -2) },
      unused: { dims: [], data: Float32Array.of(0) },
    },
  });
  expect(fields(model).map(([field]) => field)).toEqual([1, 7, 8]); // ir_version, graph, opset_import
  expect(fields(model)[0][1]).toBe(10);
  const [opset] = all(model, 8);
  expect(opset).toEqual(Buffer.of(2 << 3, 23));
  const [graph] = all(model, 7);
  const [softmax, add] = all(graph, 1);
  expect([strings(softmax, 1), strings(softmax, 2), strings(softmax, 4)]).toEqual([
    ['x'],
    ['y'],
    ['Softmax'],
  ]);
  expect(fields(all(softmax, 5)[0])).toEqual([
    [1, Buffer.from('axis')],
    [3, -1],
    [20, 2],
  ]);
  expect(strings(add, 1)).toEqual(['y', 'c']);
  const constants = all(graph, 5);
  expect(constants).toHaveLength(1); // what no node reads is left out
  expect(fields(constants[0])).toEqual([
    [1, 2],
    [2, 1],
    [8, Buffer.from('c')],
    [9, Buffer.from(Float32Array.of(1, -2).buffer)],
  ]);
  const [type] = all(all(graph, 11)[0], 2);
  const dims = all(all(all(type, 1)[0], 2)[0], 1);
  expect(dims).toEqual([Buffer.of(1 << 3, 2), Buffer.of((2 << 3) | 2, 1, 'n'.charCodeAt(0))]);
});

test.each([true, false])(
  'graphs read only what is there, each of it made once (operator: %s)',
  (withOperator) => {
    const made = models({ heads: 3, headDim: 200, segment: 300, rule: 'delta' }, withOperator);
    for (const [name, encode] of Object.entries(made) as [string, () => Buffer][]) {
      const [graph] = all(encode(), 7);
      const known = new Set(all(graph, 5).flatMap((tensor) => strings(tensor, 8)));
      for (const input of all(graph, 11)) known.add(strings(input, 1)[0]);
      const types: string[] = [];
      for (const node of all(graph, 1)) {
        for (const input of strings(node, 1)) expect([...known]).toContain(input);
        for (const output of strings(node, 2)) {
          expect([...known]).not.toContain(output);
          known.add(output);
        }
        types.push(...strings(node, 4));
      }
      const outputs = all(graph, 12).flatMap((output) => strings(output, 1));
      const state = ['next memory', 'next normalizer'];
      expect(outputs).toEqual({ whole: ['out', ...state], state, token: ['out'] }[name]);
      for (const output of outputs) expect([...known]).toContain(output);
      expect(types.includes('Attention')).toBe(withOperator && name !== 'state');
    }
  },
);
