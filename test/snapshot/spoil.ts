import type { Rng } from '../support/rng';
import { withHeader } from '../support/tiny-model';
import { reseal, sealed, takeApart } from './files';

/** A snapshot changed at random; undefined where this one has nothing to change. */
export type Spoil = (bytes: Uint8Array, rng: Rng) => Buffer<ArrayBuffer> | undefined;

const place = (bytes: Uint8Array, rng: Rng) => rng.int(0, bytes.length - 1);
const random = (length: number, rng: Rng) => Buffer.from(Array.from({ length }, () => rng.int(0, 255)));

/** Accidents: what a disk, a network or a program does. No checksum survives them. */
export const accidents: Record<string, Spoil> = {
  truncated: (bytes, rng) => Buffer.from(bytes.subarray(0, place(bytes, rng))),
  extended: (bytes, rng) => Buffer.concat([bytes, Buffer.alloc(rng.int(1, 64), rng.pick([0, 32, 255]))]),
  'with a bit flipped': (bytes, rng) => {
    const changed = Buffer.from(bytes);
    changed[place(bytes, rng)] ^= 1 << rng.int(0, 7);
    return changed;
  },
  'with a bit of its header flipped': (bytes, rng) => {
    const changed = Buffer.from(bytes);
    changed[rng.int(0, bytes.length - takeApart(bytes).data.length - 1)] ^= 1 << rng.int(0, 7);
    return changed;
  },
  'with bytes overwritten': (bytes, rng) => {
    const changed = Buffer.from(bytes);
    random(rng.int(1, 100), rng).copy(changed, place(bytes, rng));
    return changed;
  },
  'with zeros for a block': (bytes, rng) => {
    const at = place(bytes, rng);
    return Buffer.from(bytes).fill(0, at, Math.min(bytes.length, at + rng.int(1, 512)));
  },
  'with a piece cut out': (bytes, rng) => {
    const at = place(bytes, rng);
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + rng.int(1, 64))]);
  },
  'with another length of its header': (bytes, rng) => {
    const changed = Buffer.from(bytes);
    const lengths = [0n, 1n, 2n, 99_999_999n, 100_000_001n, 2n ** 31n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n];
    changed.writeBigUInt64LE(rng.pick([...lengths, BigInt(rng.int(0, bytes.length))]));
    return changed;
  },
  'of random bytes': (bytes, rng) => random(rng.int(0, bytes.length), rng),
  'of a header alone': (bytes) => withHeader(takeApart(bytes).header, Buffer.alloc(0)),
};

/** A header as an object, changed at will, under a right checksum. */
const edited =
  (edit: (header: Record<string, Record<string, unknown>>, rng: Rng) => void): Spoil =>
  (bytes, rng) => {
    const { header, data } = takeApart(bytes);
    const parsed = JSON.parse(header);
    edit(parsed, rng);
    return sealed(JSON.stringify(parsed), data);
  };

/** A header as a text. */
const rewritten =
  (rewrite: (header: string, rng: Rng) => string): Spoil =>
  (bytes, rng) => {
    const { header, data } = takeApart(bytes);
    return sealed(rewrite(header.trimEnd(), rng), data);
  };

/** The configuration of a stream, changed. */
const reconfigured = (edit: (config: Record<string, unknown>, rng: Rng) => unknown): Spoil =>
  edited((header, rng) => {
    const config = JSON.parse(header.__metadata__.config as string);
    header.__metadata__.config = JSON.stringify(edit(config, rng) ?? config);
  });

const tensors = ['normalizer', 'matrix', 'keys', 'values'];
const oddNumbers = [-1, 0, 1, 1.5, 3, 7, 256, 257, 1025, 65536, 65537, 2 ** 31, 2 ** 53, 1e300, -(2 ** 63)];
const oddValues = [
  ...oddNumbers,
  null,
  true,
  '',
  '1',
  'x',
  'float32',
  'linear',
  [],
  [1],
  [[]],
  {},
  { theta: 1 },
];

/** A number of one tensor's data, under a right checksum. */
const renumbered =
  (name: string, choices: number[]): Spoil =>
  (bytes, rng) => {
    const { header, data, tensors } = takeApart(bytes);
    const { dtype, data_offsets } = tensors[name];
    const size = { F64: 8, F32: 4, BF16: 2, F16: 2 }[dtype] as number;
    const count = (data_offsets[1] - data_offsets[0]) / size;
    if (count === 0) return undefined;
    const changed = Buffer.from(data);
    const at = data_offsets[0] + size * rng.int(0, count - 1);
    const number = rng.pick(choices);
    if (size === 8) changed.writeDoubleLE(number, at);
    else if (size === 4) changed.writeFloatLE(number, at);
    else
      changed.writeUInt16LE(
        Number.isFinite(number) ? 0x1234 : 0x7f80 | 0x7c00 | (number < 0 ? 0x8000 : 0),
        at,
      );
    return sealed(header, changed);
  };

const { NaN: nan, POSITIVE_INFINITY: infinity, NEGATIVE_INFINITY: negative } = Number;

/** Malice: files whose checksums are right, so that what lies behind it has to find them. */
export const malice: Record<string, Spoil> = {
  'with another shape': edited((header, rng) => {
    const { shape } = header[rng.pick(tensors)] as { shape: unknown[] };
    if (rng.int(0, 3) === 0) shape.push(rng.pick(oddValues));
    else shape[rng.int(0, shape.length - 1)] = rng.pick(oddValues);
  }),
  'with shapes that hold as much': edited((header, rng) => {
    const { shape } = header[rng.pick(tensors)] as { shape: unknown[] };
    rng.pick([() => shape.reverse(), () => shape.push(1), () => shape.unshift(1)])();
  }),
  'with another dtype': edited((header, rng) => {
    const name = rng.pick(tensors);
    header[name].dtype = rng.pick(['F64', 'F32', 'BF16', 'F16', 'I32', 'U16', 'F4', 'x', '', null, 1]);
  }),
  'with other offsets': edited((header, rng) => {
    const { data_offsets: offsets } = header[rng.pick(tensors)] as { data_offsets: unknown[] };
    const which = rng.int(0, 1);
    const given = offsets[which] as number;
    offsets[which] = rng.pick([...oddValues, given + 1, given - 1, given + 8, given * 2]);
  }),
  'with tensors exchanged': edited((header, rng) => {
    const [a, b] = [rng.pick(tensors), rng.pick(tensors)];
    [header[a], header[b]] = [header[b], header[a]];
  }),
  'without a tensor, or with one under another name': edited((header, rng) => {
    const name = rng.pick(tensors);
    if (rng.int(0, 1)) header[rng.pick(['Matrix', 'x', 'logits', 'layers.0.matrix'])] = header[name];
    delete header[name];
  }),
  'with one more tensor': edited((header, rng) => {
    const end = Math.max(...tensors.map((name) => (header[name].data_offsets as number[])[1]));
    header[rng.pick(['more', 'logits', ' matrix', 'constructor'])] = {
      dtype: 'U8',
      shape: [0],
      data_offsets: [end, end],
    };
  }),
  'with data that belong to nothing': (bytes, rng) => {
    const { header, data } = takeApart(bytes);
    const more = Buffer.alloc(rng.int(1, 16));
    return sealed(header, Buffer.concat(rng.int(0, 1) ? [data, more] : [more, data]));
  },
  'with less data': (bytes, rng) => {
    const { header, data } = takeApart(bytes);
    return sealed(header, data.subarray(0, rng.int(0, data.length - 1)));
  },
  'with a key twice': rewritten((header, rng) => {
    const [key] = rng.pick([...header.matchAll(/"[\w.]+":("[^"\\]*"|\[[\d,]*\])/g)]);
    return header.replace(key, `${key},${key}`);
  }),
  'with a tensor twice': rewritten((header, rng) => {
    const name = rng.pick(tensors);
    const text = JSON.stringify({ [name]: JSON.parse(header)[name] }).slice(1, -1);
    return `${header.slice(0, -1)},${text}}`;
  }),
  'with __proto__': rewritten((header, rng) => {
    const value = rng.pick([
      '{}',
      '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}',
      '"x"',
      '{"version":"1"}',
    ]);
    return header.replace(
      rng.pick(['"normalizer"', '"kind"', '"dtype"']),
      (at) => `"__proto__":${value},${at}`,
    );
  }),
  'with other white space, or none': rewritten((header, rng) =>
    header.replace(
      rng.pick([':', ',', '{', '}', '[']),
      (at) => at + rng.pick([' ', '\n', '\t\r', '\u00a0', '\0']),
    ),
  ),
  'with its tensors in another order': edited((header, rng) => {
    const name = rng.pick(tensors);
    const entry = header[name];
    delete header[name];
    header[name] = entry;
  }),
  'with another number of tokens': edited((header, rng) => {
    const tokens = Number(header.__metadata__.tokens);
    const odd = ['', '-1', '-0', '00', '1e1', '0x9', ' 1', '1.0', 'NaN', '9007199254740992', '9'.repeat(40)];
    const near = [tokens + 1, tokens - 1, tokens + 6, tokens % 6, tokens + 6e15, 2 ** 53 - 1].map(String);
    header.__metadata__.tokens = rng.pick([...odd, ...near, 7, null]);
  }),
  'with other metadata': edited((header, rng) => {
    const metadata = header.__metadata__;
    const key = rng.pick(['format', 'version', 'kind', 'sha256', 'config']);
    rng.pick([
      () => delete metadata[key],
      () =>
        Object.assign(metadata, { [key]: rng.pick(['', '0', '2', '1.0', '10', 'session', '{}', '[', 'pt']) }),
      () => Object.assign(metadata, { [rng.pick(['more', 'Tokens', 'model', ''])]: 'x' }),
    ])();
  }),
  'with a part of its configuration changed': reconfigured((config, rng) => {
    config[rng.pick(Object.keys(config))] = rng.pick(oddValues);
  }),
  'with a part of its configuration left out or more in it': reconfigured((config, rng) => {
    if (rng.int(0, 1)) delete config[rng.pick(Object.keys(config))];
    else config[rng.pick(['more', 'Heads', 'ropeTheta', 'toString'])] = rng.pick(oddValues);
  }),
  'with a configuration of another kind': reconfigured((_, rng) => rng.pick([1, 'x', true, [], [{}], {}])),
  'with gates that are none': reconfigured((config, rng) => {
    const gate = config.gate as unknown[];
    config.gate = rng.pick([
      [],
      [...gate, 0],
      gate.slice(1),
      { length: gate.length },
      ['0'],
      [null],
      0,
      [null, 1],
    ]);
  }),
  'with a configuration in other words': edited((header, rng) => {
    const { config } = header.__metadata__ as { config: string };
    header.__metadata__.config = rng.pick([
      ` ${config}`,
      config.replace(',', ', '),
      config.replace('{', '{"heads":1,'),
      config.replace('{', '{"__proto__":{},'),
      JSON.stringify(Object.fromEntries(Object.entries(JSON.parse(config)).reverse())),
      config.replace(/:(\d+),/, ':$1.0,'),
      '['.repeat(rng.pick([10, 5000, 60_000, 100_000])),
    ]);
  }),
  'nested deep': rewritten((header, rng) => {
    const deep = rng.pick(['[', '{"a":', '{"__metadata__":']).repeat(rng.pick([3, 1000, 100_000]));
    return header.replace(rng.pick(['"normalizer":', '"shape":', '"kind":']), (at) => at + deep);
  }),
  'with a normalizer that cannot be': renumbered('normalizer', [nan, infinity, negative, -1, -1e-300]),
  'with a matrix that cannot be': renumbered('matrix', [nan, infinity, negative]),
  'with keys that cannot be': renumbered('keys', [nan, infinity, negative]),
  'with values that cannot be': renumbered('values', [nan, infinity, negative]),
  'with another memory': renumbered(tensors[1], [1, -2, 0.5]),
  'with another normalizer': renumbered(tensors[0], [1, 2, 1e-300]),
  'with other open tokens': (bytes, rng) =>
    renumbered(rng.pick(['keys', 'values']), [1, -2, 0.5])(bytes, rng),
  'in another place of its own header': (bytes, rng) => {
    const { header, data, metadata } = takeApart(bytes);
    const rest = Object.entries(metadata).filter(([key]) => key !== 'sha256');
    rest.splice(rng.pick([0, 1, 3, 4]), 0, ['sha256', metadata.sha256]);
    return sealed(JSON.stringify({ ...JSON.parse(header), __metadata__: Object.fromEntries(rest) }), data);
  },
  'that are only resealed': (bytes) => reseal(Buffer.from(bytes)),
};
