// What serving.cjs gives to streams, and whether their results are right.

/** Tokens that come round again and again: 0.75 to 1.5, either sign, in the stream's type. */
function makeInputs({ heads, headDim, dtype }, tokens) {
  let state = 1;
  const width = heads * headDim;
  const noise = () => {
    const draw = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state;
    };
    if (dtype === 'float32')
      return Float32Array.from({ length: tokens * width }, () => (draw() / 2 ** 31 - 1) * 1.5);
    const one = dtype === 'bfloat16' ? 0x3f40 : 0x3a00;
    return Uint16Array.from(
      { length: tokens * width },
      () => one + ((draw() >>> 16) & 0x7f) + (state & 0x8000),
    );
  };
  const [q, k, v] = [noise(), noise(), noise()];
  const part = (from, count) => {
    const cut = (array) => array.subarray(from * width, (from + count) * width);
    return { q: cut(q), k: cut(k), v: cut(v) };
  };
  return { tokens, part };
}

/** The same bytes; of a GPU, whose outputs depend on how tokens are split, the same numbers nearly. */
function checkSame(found, wanted, what, { exact, dtype }) {
  const bytes = (array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength);
  if (bytes(found).equals(bytes(wanted))) return;
  if (exact) throw new Error(`${what}: not the result of the stream alone`);
  const numbers = (array) =>
    dtype === 'float32' ? array : Float32Array.from(array, (bits) => decodeHalf(bits, dtype));
  const [a, b] = [numbers(found), numbers(wanted)];
  let [difference, norm] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    difference += (a[i] - b[i]) ** 2;
    norm += b[i] ** 2;
  }
  if (!(Math.sqrt(difference / norm) <= 1e-2)) throw new Error(`${what}: not the result of the stream alone`);
}

function decodeHalf(bits, dtype) {
  const [exponentBits, fractionBits] = dtype === 'bfloat16' ? [8, 7] : [5, 10];
  const exponent = (bits >> fractionBits) & (2 ** exponentBits - 1);
  const fraction = (bits & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  const size = exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias);
  return bits & 0x8000 ? -size : size;
}

/** What a stream was given: so many tokens from the start of the inputs, round and round. */
class Client {
  given = 0;

  constructor(stream, inputs) {
    this.stream = stream;
    this.inputs = inputs;
  }

  /** Never across the end of the inputs. */
  next(tokens) {
    const from = this.given % this.inputs.tokens;
    const count = Math.min(tokens, this.inputs.tokens - from);
    this.given += count;
    return this.stream.attend(this.inputs.part(from, count));
  }
}

/** One more token of each client, and what its memory holds, against streams that were given all of it alone. */
async function verify(device, config, clients, inputs, check) {
  const probe = inputs.part(0, 1);
  for (const { stream, given } of clients) {
    const alone = device.createStream(config);
    for (let done = 0; done < given; ) {
      const from = done % inputs.tokens;
      const count = Math.min(inputs.tokens - from, given - done);
      await alone.attend(inputs.part(from, count));
      done += count;
    }
    checkSame(await stream.retrieve({ q: probe.q }), await alone.retrieve({ q: probe.q }), 'retrieve', check);
    checkSame(await stream.attend(probe), await alone.attend(probe), 'attend', check);
    alone.close();
  }
}

module.exports = { Client, checkSame, makeInputs, verify };
