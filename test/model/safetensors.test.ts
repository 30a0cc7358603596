import { mkdtempSync, rmSync } from 'node:fs';
import { type FileHandle, open, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { readHeader } from '../../lib/model/safetensors';
import type { StoredTensor } from '../../lib/safetensors/parser';
import { expectModelError, type Stored, safetensors, withHeader } from '../support/tiny-model';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

async function withFile<T>(bytes: Uint8Array, use: (file: FileHandle) => Promise<T>): Promise<T> {
  const name = path.join(folder, 'file');
  await writeFile(name, bytes);
  const file = await open(name);
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

const read = (bytes: Uint8Array) => withFile(bytes, (file) => readHeader(file, 'x.safetensors'));
const refuse = (bytes: Uint8Array, ...says: (string | RegExp)[]) =>
  expectModelError(() => read(bytes), /^x\.safetensors: expected /, 'received', ...says);

const data = (length: number) => Buffer.alloc(length, 0xab);
/** A file of a header as JSON, and so many bytes of data. */
const fileOf = (header: unknown, length: number) => withHeader(JSON.stringify(header), data(length));
const entry = (dtype: string, shape: unknown, begin: unknown, end: unknown) => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

describe('a valid file', () => {
  test('gives each tensor with its place in the file', async () => {
    const tensors = new Map<string, Stored>([
      ['a', { dtype: 'F32', shape: [2, 3], bytes: data(24) }],
      ['b', { dtype: 'BF16', shape: [5], bytes: data(10) }],
      ['scalar', { dtype: 'F64', shape: [], bytes: data(8) }],
    ]);
    const file = safetensors(tensors, { format: 'pt' });
    const begin = file.length - 42;
    expect(begin % 8).toBe(0); // the writer has padded the header
    expect([...(await read(file))]).toEqual([
      ['a', { dtype: 'F32', shape: [2, 3], begin, end: begin + 24 }],
      ['b', { dtype: 'BF16', shape: [5], begin: begin + 24, end: begin + 34 }],
      ['scalar', { dtype: 'F64', shape: [], begin: begin + 34, end: begin + 42 }],
    ]);
  });

  test.each(['{}', '{ }', '{}   ', '{"__metadata__":{}}', '{"__metadata__" : { "a" : "b\\n" } }\n'])(
    'of no tensors has the header %j',
    async (header) => expect((await read(withHeader(header, data(0)))).size).toBe(0),
  );

  test('may have empty tensors at the beginning, between others and at the end', async () => {
    const file = fileOf(
      {
        end: entry('F32', [7, 0], 8, 8),
        full: entry('U8', [4], 0, 4),
        begin: entry('F32', [0], 0, 0),
        middle: entry('I64', [2 ** 40, 0], 4, 4),
        rest: entry('I8', [2, 2], 4, 8),
      },
      8,
    );
    const tensors = await read(file);
    expect(tensors.size).toBe(5);
    const begin = file.length - 8;
    expect(tensors.get('middle')).toEqual({
      dtype: 'I64',
      shape: [2 ** 40, 0],
      begin: begin + 4,
      end: begin + 4,
    });
    expect(tensors.get('end')).toMatchObject({ begin: begin + 8, end: begin + 8 });
  });

  test('may hold its tensors in another order than its header, and keys in any order', async () => {
    const header =
      '{"b":{"data_offsets":[2,4],"shape":[2],"dtype":"U8"},\r\n\t"a" : {"shape":[2], "dtype":"U8", "data_offsets":[ 0 ,2 ]}}';
    const tensors = await read(withHeader(header, data(4)));
    expect([...tensors.keys()]).toEqual(['b', 'a']);
    expect(tensors.get('a')?.begin).toBe(8 + header.length);
  });

  const types = {
    ...{ BOOL: 1, U8: 1, I8: 1, F8_E5M2: 1, F8_E4M3: 1, F8_E8M0: 1, F8_E4M3FNUZ: 1, F8_E5M2FNUZ: 1 },
    ...{ I16: 2, U16: 2, F16: 2, BF16: 2, I32: 4, U32: 4, F32: 4, F64: 8, I64: 8, U64: 8, C64: 8 },
  };
  test.each(Object.entries(types))('may be of %s, %d bytes each', async (dtype, bytes) => {
    expect((await read(fileOf({ a: entry(dtype, [3], 0, 3 * bytes) }, 3 * bytes))).size).toBe(1);
    await refuse(fileOf({ a: entry(dtype, [3], 0, 3 * bytes + 1) }, 3 * bytes + 1), `${3 * bytes} bytes`);
  });

  test('may name its tensors anything', async () => {
    const names = ['', '__proto__', 'constructor', '\u00fc "\\', '\ud83d\ude00', 'x'.repeat(5000)];
    const entries = names.map(
      (name, i) => `${JSON.stringify(name)}:${JSON.stringify(entry('U8', [1], i, i + 1))}`,
    );
    const tensors = await read(withHeader(`{${entries.join()}}`, data(names.length)));
    expect([...tensors.keys()]).toEqual(names);
    expect(Object.prototype).not.toHaveProperty('dtype');
    expect((tensors.get('__proto__') as StoredTensor).shape).toEqual([1]);
  });

  test('is read without its data', async () => {
    const file = fileOf({ a: entry('U8', [1000], 0, 1000) }, 1000);
    let last = 0;
    const counting = (handle: FileHandle) =>
      new Proxy(handle, {
        get(target, key) {
          if (key !== 'read') return Reflect.get(target, key).bind(target);
          return (buffer: Buffer, offset: number, length: number, position: number) => {
            last = Math.max(last, position + length);
            return target.read(buffer, offset, length, position);
          };
        },
      });
    await withFile(file, (handle) => readHeader(counting(handle), 'x'));
    expect(last).toBe(file.length - 1000);
  });
});

describe('the beginning', () => {
  test.each([0, 1, 7])('of a file of %d bytes is too short', async (length) =>
    refuse(Buffer.alloc(length), 'at least 8 bytes', `received ${length}`),
  );

  const withLength = (length: bigint) => {
    const bytes = Buffer.alloc(12, ' ');
    bytes.writeBigUInt64LE(length);
    return bytes;
  };

  test.each([0n, 100_000_001n, 2n ** 32n, 2n ** 63n, 2n ** 64n - 1n])(
    'cannot say that the header has %d bytes',
    async (length) =>
      refuse(withLength(length), "00 bytes for the header's length", `received ${Number(length)}`),
  );

  test.each([5, 6, 100_000_000])('cannot say that the header has %d bytes in a file of 12', async (length) =>
    refuse(withLength(BigInt(length)), `at least ${length + 8} bytes`, 'received 12', 'truncated'),
  );

  test('is a header that begins with a brace', async () => {
    for (const header of [' {}', '\n{}', '[]', '"x"', 'x', '\ufeff{}', '\0{}']) {
      await refuse(withHeader(header, data(0)), "'{'", 'first character');
    }
  });
});

describe('a header', () => {
  const refuseText = (text: string | Uint8Array, ...says: string[]) =>
    refuse(withHeader(text, data(4)), ...says);

  test('of other bytes than UTF-8 is refused', async () => {
    for (const bytes of [[0xff], [0xc3], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80]]) {
      const header = Buffer.concat([Buffer.from('{"'), Buffer.from(bytes), Buffer.from('":1}')]);
      await refuseText(header, 'UTF-8');
    }
  });

  const whole = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}';
  test('that these tests spoil is valid', async () =>
    expect((await read(withHeader(`{${whole}}`, data(4)))).size).toBe(1));

  test.each([
    ['ends early', '{', 'the header ends here'],
    ['ends in a name', '{"a', 'string'],
    ['ends after a name', '{"a"', "':'"],
    ['ends after a colon', '{"a":', "'{'"],
    ['ends in a tensor', '{"a":{"dtype":"F32"', "',' or '}'"],
    ['ends in a list', '{"a":{"shape":[1', "',' or ']'"],
    ['ends after a tensor', `{${whole}`, "',' or '}'"],
    ['has a comma too many', `{${whole},}`, "'}'"],
    ['begins with a comma', `{,${whole}}`, 'a string'],
    ['lacks a comma', `{${whole} ${whole.replace('a', 'b')}}`, "',' or '}'"],
    ['lacks a colon', '{"a" {}}', "':'"],
    ['has single quotes', "{'a':{}}", 'a string'],
    ['has a name without quotes', '{a:{}}', 'a string'],
    ['has a comment', `{/**/${whole}}`, 'a string'],
    ['has a bad escape', '{"a\\x":{}}', 'a string of JSON'],
    ['has half a surrogate pair', '{"\\ud800":{}}', 'whole characters'],
    ['has a control character in a name', '{"a\n":{}}', 'a string of JSON'],
    ['has text behind it', `{${whole}} x`, 'white space'],
    ['has a second object behind it', `{${whole}}{}`, 'white space'],
    ['ends in zeros', `{${whole}}\0\0`, 'white space'],
    ['ends in a wide space', `{${whole}}\u00a0`, 'white space'],
  ])('that %s is no JSON', async (_, text, says) => refuseText(text, says));

  test.each(['null', '1', '"x"', '[]', '[["a","b"]]', 'true'])('has no metadata %s', async (value) =>
    refuseText(`{"__metadata__":${value},${whole}}`, '__metadata__', "'{'"),
  );

  test.each(['null', '1', '{}', '["x"]', 'true'])('has metadata of strings, not %s', async (value) =>
    refuseText(`{"__metadata__":{"ok":"yes","k":${value}},${whole}}`, '__metadata__', 'a string'),
  );

  test('names nothing twice', async () => {
    await refuseText(`{${whole},${whole}}`, 'the header', '"a" twice');
    await refuseText(`{${whole},"\\u0061":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}`, '"a" twice');
    await refuseText(`{"__metadata__":{},${whole},"__metadata__":{}}`, '"__metadata__" twice');
    await refuseText(`{"__metadata__":{"k":"1","k":"1"},${whole}}`, '"k" twice');
    await refuseText(
      '{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
      'tensor "a"',
      '"dtype" twice',
    );
    await refuseText(`{"__proto__":${whole.slice(4)},"__proto__":${whole.slice(4)}}`, '"__proto__" twice');
  });
});

describe('a tensor', () => {
  test.each(['null', '1', '"F32"', '[]', 'true'])('that is %s is refused', async (value) =>
    refuse(withHeader(`{"the one":${value}}`, data(4)), 'tensor "the one"', "'{'"),
  );

  test.each(['dtype', 'shape', 'data_offsets'])('needs %s', async (key) => {
    const { [key as 'dtype']: _, ...rest } = entry('F32', [1], 0, 4);
    await refuse(fileOf({ one: rest }, 4), 'tensor "one"', `"${key}"`, 'undefined');
  });

  /** A tensor whose parts are these texts, in a file of 4 bytes of data. */
  const one = (parts: { dtype?: string; shape?: string; offsets?: string; more?: string }) => {
    const { dtype = '"F32"', shape = '[1]', offsets = '[0,4]', more = '' } = parts;
    return withHeader(
      `{"one":{"dtype":${dtype},"shape":${shape},"data_offsets":${offsets}${more}}}`,
      data(4),
    );
  };
  const refuseOne = (parts: Parameters<typeof one>[0], key: string, ...says: string[]) =>
    refuse(one(parts), key === '' ? 'tensor "one"' : `"${key}" of tensor "one"`, ...says);

  test('that these tests spoil is valid', async () => expect((await read(one({}))).size).toBe(1));

  test.each(['Dtype', '', '__proto__', 'data_offset'])('has no key %j', async (key) =>
    refuseOne({ more: `,"${key}":1` }, '', 'only dtype, shape and data_offsets', `'${key}'`),
  );

  test.each(['F31', 'f32', '', 'float32', 'toString', '__proto__', 'F32 '])(
    'is of no type %j',
    async (dtype) => refuseOne({ dtype: `"${dtype}"` }, 'dtype', 'a known type', `'${dtype}'`),
  );

  test.each(['F4', 'F6_E2M3', 'F6_E3M2'])('is not of %s', async (dtype) =>
    refuseOne({ dtype: `"${dtype}"`, shape: '[8]' }, 'dtype', 'whole bytes', dtype),
  );

  test.each(['null', '32', '["F32"]', '{}'])('has a type that is no %s', async (dtype) =>
    refuseOne({ dtype }, 'dtype', 'a string'),
  );

  const odd = '-1 -0 1.0 1.5 1e0 01 +1 "1" null true [1] {} 9007199254740992 1e999'.split(' ');
  const says = ['integers from 0 to 2^53 - 1'];

  test.each(odd)('has no dimension %s', async (value) =>
    refuseOne({ shape: `[1,${value}]` }, 'shape', ...says, value.slice(0, 3)),
  );

  test.each(odd)('has no offset %s', async (value) => {
    await refuseOne({ offsets: `[${value},4]` }, 'data_offsets', ...says, value.slice(0, 3));
    await refuseOne({ offsets: `[0,${value}]` }, 'data_offsets', ...says, value.slice(0, 3));
  });

  test.each(['null', '4', '{}', '"4"'])('has neither the shape nor the offsets %s', async (value) => {
    await refuseOne({ shape: value }, 'shape', "'['");
    await refuseOne({ offsets: value }, 'data_offsets', "'['");
  });

  test.each([[2 ** 53 - 1], [2 ** 30, 2 ** 30], [2 ** 51], [2 ** 40, 2 ** 40, 0]])(
    'is not of shape [%d, ...], whose bytes cannot be counted',
    async (...shape) =>
      refuseOne({ shape: `[${shape}]` }, 'shape', 'a smaller tensor', `[${shape.join(', ')}]`),
  );

  test('has at most 64 dimensions', async () => {
    expect((await read(fileOf({ one: entry('F32', Array(64).fill(1), 0, 4) }, 4))).size).toBe(1);
    await refuseOne({ shape: `[${Array(65).fill(1)}]` }, 'shape', 'at most 64');
  });

  test.each(['', '0', '4, 0', '0, 5', '5, 9', '0, 9007199254740991'])(
    'is not at [%s] of 4 bytes',
    async (offsets) =>
      refuseOne(
        { offsets: `[${offsets}]` },
        'data_offsets',
        'from 0 to 4, the length of the data',
        `[${offsets}]`,
      ),
  );

  test('has two offsets, not three', async () =>
    refuseOne({ offsets: '[0,4,4]' }, 'data_offsets', 'at most 2'));

  test.each([
    ['F32', [2], 4, '8 bytes (F32 [2])'],
    ['F32', [], 8, '4 bytes (F32 [])'],
    ['F16', [2, 3], 8, '12 bytes (F16 [2, 3])'],
    ['F64', [0, 3], 8, '0 bytes (F64 [0, 3])'],
    ['U8', [9], 8, '9 bytes (U8 [9])'],
  ])('of %s %j does not have %d bytes', async (dtype, shape, length, wanted) =>
    refuse(
      fileOf({ one: entry(dtype, shape, 0, length) }, length),
      'tensor "one"',
      wanted,
      `received ${length}`,
    ),
  );
});

describe('the data', () => {
  const bytes = (begin: number, end: number) => entry('U8', [end - begin], begin, end);

  test('of two tensors do not overlap', async () => {
    await refuse(
      fileOf({ b: bytes(3, 8), a: bytes(0, 4) }, 8),
      'tensor "b"',
      '4, where',
      'received 3',
      'overlap',
    );
    await refuse(fileOf({ a: bytes(0, 8), b: bytes(0, 8) }, 8), 'tensor "b"', 'received 0', 'overlap');
    await refuse(fileOf({ a: bytes(0, 8), b: bytes(2, 4) }, 8), 'tensor "b"', '8, where', 'overlap');
    await refuse(fileOf({ a: bytes(0, 8), empty: bytes(4, 4) }, 8), 'tensor "empty"', 'overlap');
  });

  test('have no hole', async () => {
    await refuse(
      fileOf({ a: bytes(1, 8) }, 8),
      'tensor "a"',
      '0, where',
      'received 1',
      'belong to no tensor',
    );
    await refuse(fileOf({ a: bytes(0, 3), b: bytes(4, 8) }, 8), 'tensor "b"', '3, where', 'received 4');
    await refuse(fileOf({ a: bytes(0, 3), e: bytes(4, 4), b: bytes(3, 8) }, 8), 'tensor "e"', 'overlap');
  });

  test('end where the file does', async () => {
    const file = fileOf({ a: bytes(0, 4), b: bytes(4, 8) }, 8);
    expect((await read(file)).size).toBe(2);
    await refuse(Buffer.concat([file, Buffer.of(0)]), '8 bytes, where the last tensor ends', 'received 9');
    await refuse(file.subarray(0, -1), '"data_offsets" of tensor "b"', 'from 0 to 7', '[4, 8]');
    await refuse(withHeader('{}', data(1)), '0 bytes', 'received 1', 'belong to no tensor');
  });
});

test('a file cut at any byte is refused', async () => {
  const file = fileOf({ a: entry('F32', [2], 0, 8), b: entry('U8', [3], 8, 11) }, 11);
  expect((await read(file)).size).toBe(2);
  for (let length = 0; length < file.length; length++) await refuse(file.subarray(0, length));
});

test('a file that shrinks while it is read is refused', async () => {
  await withFile(fileOf({ a: entry('U8', [4], 0, 4) }, 4), async (file) => {
    const longer = new Proxy(file, {
      get: (target, key) =>
        key === 'stat'
          ? async () => ({ isFile: () => true, size: 1e9 })
          : Reflect.get(target, key).bind(target),
    });
    await writeFile(path.join(folder, 'file'), Buffer.of(100, 0, 0, 0, 0, 0, 0, 0, 123));
    await expectModelError(() => readHeader(longer, 'x'), '108 bytes', 'received 9', 'cut while it was read');
  });
});

test('what is no file is refused', async () => {
  const directory = await open(folder);
  await expectModelError(() => readHeader(directory, 'x'), 'a regular file', 'a directory');
  await directory.close();
  await expectModelError(() => readHeader(directory, 'x'), 'x: expected a readable file', 'file closed');
});

test('long and odd names are shown in short and escaped', async () => {
  const file = fileOf({ [`\n\u0000${'y'.repeat(1000)}`]: entry('F31', [1], 0, 4) }, 4);
  await refuse(file, `"\\n\\u0000${'y'.repeat(126)}..."`);
  const error = await read(file).catch((caught) => caught);
  expect(error.message.length).toBeLessThan(300);
});

test('a hostile header of many megabytes is refused at its first defect', async () => {
  for (const piece of ['[', '{"a":', '{},', '"a":{},', '1,', '"']) {
    const begin = performance.now();
    await refuse(withHeader(`{"a":{"shape":${piece.repeat(2e7 / piece.length)}`, data(0)));
    expect(performance.now() - begin).toBeLessThan(5000);
  }
});

test('a header has at most 20,000 names', async () => {
  const empty = JSON.stringify(entry('U8', [0], 0, 0));
  const entries = Array.from({ length: 20_001 }, (_, i) => `"${i}":${empty}`);
  expect((await read(withHeader(`{${entries.slice(1).join()}}`, data(0)))).size).toBe(20_000);
  await refuse(withHeader(`{${entries.join()}}`, data(0)), 'at most 20000 names for the header', "'20000'");
});
