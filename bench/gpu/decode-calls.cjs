// The ways to append one token to each of several streams. Each is { step, read, close }: step() makes the call, and
// returns a promise unless the call is synchronous; read() resolves to the outputs, packed [streams, heads, headDim].

const { mapTensors, places } = require('./inputs.cjs');

/** `step` or `stepSync` of a prepared batch. */
const prepared = (method, place) => (device, streams, shape, input) => {
  const { tensors, read, close } = places[place](device, [streams.length, shape.heads, shape.headDim], input);
  const batch = device.createBatch(streams);
  const closeAll = () => {
    batch.close();
    close();
  };
  return { step: () => batch[method](tensors), read, close: closeAll };
};

/** The row of a stream in packed arrays. */
const rowOf = (array, i, count) =>
  array.subarray((i * array.length) / count, ((i + 1) * array.length) / count);

/** What attendBatch gives settles each by itself: the first failure counts here. */
async function attendAll(device, entries) {
  for (const { reason } of await device.attendBatch(entries)) if (reason) throw reason;
}

/** `attendBatch` with rows of arrays, or of arrays in host buffers. */
const flexible = (place) => (device, streams, _, input) => {
  const { tensors, read, close } = places[place](device, undefined, input);
  const entry = (stream, i) => ({
    stream,
    ...mapTensors(tensors, (array) => rowOf(array, i, streams.length)),
  });
  return { step: () => attendAll(device, streams.map(entry)), read, close };
};

/** `attendBatch` with tensors of each stream's own: a device tensor has no rows to give. */
function flexibleOnDevice(device, streams, { heads, headDim }, input) {
  const own = streams.map((_, i) => {
    const row = mapTensors(input, (array) => rowOf(array, i, streams.length));
    return places['device tensors'](device, [1, heads, headDim], row);
  });
  return {
    step: () =>
      attendAll(
        device,
        streams.map((stream, i) => ({ stream, ...own[i].tensors })),
      ),
    async read() {
      const rows = await Promise.all(own.map(({ read }) => read()));
      return Uint16Array.from(rows.flatMap((row) => Array.from(row)));
    },
    close: () => {
      for (const { close } of own) close();
    },
  };
}

module.exports = {
  decodeCalls: {
    'batch.stepSync, device tensors': prepared('stepSync', 'device tensors'),
    'batch.step, device tensors': prepared('step', 'device tensors'),
    'batch.stepSync, host arrays': prepared('stepSync', 'host arrays'),
    'attendBatch, device tensors': flexibleOnDevice,
    'attendBatch, host buffers': flexible('host buffers'),
    'attendBatch, host arrays': flexible('host arrays'),
  },
};
