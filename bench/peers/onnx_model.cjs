// Writes ONNX models: the few messages of onnx.proto that the graphs of onnx_graphs.cjs need, as protocol buffers.
// A field is a key (number << 3 | kind) and a value: a varint, four bytes, or a length and so many bytes.

function varint(value) {
  const bytes = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  bytes.push(Number(rest));
  return Buffer.from(bytes);
}

const integer = (field, value) => Buffer.concat([varint(field << 3), varint(value)]);

function float(field, value) {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([varint((field << 3) | 5), bytes]);
}

/** A string, bytes, or a message made of its fields. */
function block(field, ...parts) {
  const bytes = Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part)));
  return Buffer.concat([varint((field << 3) | 2), varint(bytes.length), bytes]);
}

const [FLOAT, INT64] = [1, 7]; // TensorProto.DataType
const [ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_INTS] = [1, 2, 7]; // AttributeProto.AttributeType

/** { float: 0.5 }, { int: 1 } or { ints: [0, 1] } */
function attribute([name, value]) {
  if ('float' in value) return block(5, block(1, name), float(2, value.float), integer(20, ATTRIBUTE_FLOAT));
  if ('int' in value) return block(5, block(1, name), integer(3, value.int), integer(20, ATTRIBUTE_INT));
  const ints = value.ints.map((one) => integer(8, one));
  return block(5, block(1, name), ...ints, integer(20, ATTRIBUTE_INTS));
}

const node = ({ type, inputs, outputs, attributes = {} }) =>
  block(
    1,
    ...inputs.map((name) => block(1, name)),
    ...outputs.map((name) => block(2, name)),
    block(4, type),
    ...Object.entries(attributes).map(attribute),
  );

const constant = ([name, { dims, data }]) =>
  block(
    5,
    ...dims.map((dim) => integer(1, dim)),
    integer(2, data instanceof BigInt64Array ? INT64 : FLOAT),
    block(8, name),
    block(9, Buffer.from(data.buffer, data.byteOffset, data.byteLength)),
  );

/** A dimension is a number, or the name of one that changes from run to run. */
const value = (field, [name, dims]) => {
  const shape = dims.map((dim) => block(1, typeof dim === 'string' ? block(2, dim) : integer(1, dim)));
  return block(field, block(1, name), block(2, block(1, integer(1, FLOAT), block(2, ...shape))));
};

/**
 * The bytes of a model of the standard operators: nodes [{ type, inputs, outputs, attributes }] in the order of their
 * work, inputs and outputs { name: dims } of float32, constants { name: { dims, data } }, written where a node reads them, of a Float32Array or BigInt64Array.
 */
function encodeModel({ nodes, inputs, outputs, constants, opset }) {
  const used = new Set(nodes.flatMap(({ inputs }) => inputs));
  const graph = block(
    7,
    ...nodes.map(node),
    block(2, 'infini'),
    ...Object.entries(constants)
      .filter(([name]) => used.has(name))
      .map(constant),
    ...Object.entries(inputs).map((one) => value(11, one)),
    ...Object.entries(outputs).map((one) => value(12, one)),
  );
  const IR_VERSION = 10;
  return Buffer.concat([integer(1, IR_VERSION), graph, block(8, integer(2, opset))]);
}

module.exports = { encodeModel };
