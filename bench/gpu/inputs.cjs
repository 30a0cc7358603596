// bfloat16 tensors for the calls that end-to-end.cjs times, wherever a call may have them.

const dtype = 'bfloat16';

let state = 1;

/** 0.75 to 1.5, either sign. */
function noise(length) {
  return Uint16Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return 0x3f40 + ((state >>> 16) & 0x7f) + (state & 0x8000);
  });
}

/** { q, k, v } of so many tokens. */
function inputsOf({ heads, headDim }, tokens) {
  const length = tokens * heads * headDim;
  return { q: noise(length), k: noise(length), v: noise(length) };
}

const mapTensors = (tensors, map) =>
  Object.fromEntries(Object.entries(tensors).map(([key, tensor]) => [key, map(tensor)]));

/** Each of the ways to hold { q, k, v, out } as { tensors, read, close }: read() resolves to what `out` holds. */
const places = {
  'host arrays': (_, __, input) => {
    const tensors = { ...input, out: new Uint16Array(input.q.length) };
    return { tensors, read: async () => tensors.out, close() {} };
  },
  'host buffers': (device, _, input) => {
    const inPlace = (data) => {
      const array = new Uint16Array(device.hostBuffer(data.byteLength));
      array.set(data);
      return array;
    };
    const tensors = mapTensors({ ...input, out: new Uint16Array(input.q.length) }, inPlace);
    return { tensors, read: async () => tensors.out, close() {} };
  },
  'device tensors': (device, shape, input) => {
    const tensors = mapTensors({ ...input, out: undefined }, (data) => device.tensor(shape, dtype, data));
    const close = () => {
      for (const tensor of Object.values(tensors)) tensor.close();
    };
    return { tensors, read: () => tensors.out.read(), close };
  },
};

module.exports = { dtype, inputsOf, mapTensors, places };
