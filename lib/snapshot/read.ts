import { mismatch, quote } from '../errors';
import { native } from '../native';
import { dataBegin, type Header, parseHeader } from '../safetensors/parser';
import { formatHeader } from '../safetensors/writer';
import { checksumOf } from './checksum';
import {
  CHECKSUM,
  type Facts,
  FORMAT,
  type Kind,
  type Layout,
  metadataKeys,
  refuse,
  VERSION,
} from './format';

/** The file of a snapshot whose checksum is right. */
export interface Snapshot<K extends Kind> {
  readonly facts: Facts<K>;
  readonly data: Uint8Array<ArrayBuffer>;
  /** Refuses a file that is not, byte for byte, what is written for its facts with this layout. */
  expect(layout: Layout): void;
}

/** Nobody else may write to the file meanwhile. What is wrong is looked for from the outside to the inside. */
export async function readSnapshot<K extends Kind>(
  file: Uint8Array<ArrayBuffer>,
  kind: K,
): Promise<Snapshot<K>> {
  if (file.length < 8) throw refuse(mismatch('at least 8 bytes', 'the snapshot', file.length));
  const begin = dataBegin(file, file.length, refuse);
  const header = parseHeader(file.subarray(8, begin), file.length - begin, refuse);
  const { metadata } = header;
  checkVersion(metadata);
  await checkSum(file, metadata.get('sha256'));
  checkKeys(metadata, kind);
  const facts = Object.fromEntries(metadata) as Facts<K>;
  const expectLayout = (layout: Layout) => {
    checkTensors(header, layout);
    const ordered = Object.fromEntries(metadataKeys(kind).map((key) => [key, metadata.get(key) as string]));
    if (formatHeader(ordered, layout.tensors).equals(file.subarray(0, begin))) return;
    throw refuse(
      'expected the header that version 1 has for this state but received the same in other words',
    );
  };
  return { facts, data: file.subarray(begin), expect: expectLayout };
}

function checkVersion(metadata: ReadonlyMap<string, string>): void {
  const format = metadata.get('format');
  if (format !== FORMAT)
    throw refuse(mismatch(`'${FORMAT}'`, '"format" of the metadata', format, 'it is no snapshot'));
  const version = metadata.get('version');
  if (version === VERSION) return;
  const what = `version ${VERSION}, which infini-stream ${native.version} reads,`;
  const library = metadata.get('library');
  const why = library === undefined ? undefined : `it was written by infini-stream ${quote(library)}`;
  throw refuse(mismatch(what, '"version" of the metadata', version, why));
}

async function checkSum(file: Uint8Array<ArrayBuffer>, given: string | undefined): Promise<void> {
  const { begin, end } = CHECKSUM;
  const there = Buffer.from(file.subarray(begin, end)).toString('latin1');
  if (given === undefined || given !== there || !/^[\da-f]{64}$/.test(given)) {
    throw refuse(mismatch('64 hexadecimal digits in their place', '"sha256" of the metadata', given));
  }
  const sum = await checksumOf(file);
  if (given === sum) return;
  throw refuse(`expected a file with the checksum ${given} but received one with ${sum} (it is damaged)`);
}

function checkKeys(metadata: ReadonlyMap<string, string>, kind: Kind): void {
  const found = metadata.get('kind');
  if (found !== kind) {
    const other = { stream: 'device.restore', session: 'model.restoreSession' }[found ?? ''];
    const why = other === undefined ? undefined : `${other} takes it`;
    throw refuse(mismatch(`'${kind}'`, '"kind" of the metadata', found, why));
  }
  const keys = metadataKeys(kind);
  for (const key of keys) {
    if (!metadata.has(key)) throw refuse(mismatch('a text', `"${key}" of the metadata`, undefined));
  }
  for (const key of metadata.keys()) {
    if (keys.includes(key)) continue;
    throw refuse(`expected only the keys ${keys.join(', ')} in the metadata but received ${quote(key)}`);
  }
}

function checkTensors({ tensors }: Header, layout: Layout): void {
  for (const [name, { dtype, shape, begin, end }] of layout.tensors) {
    const found = tensors.get(name);
    if (!found)
      throw refuse(`expected tensor "${name}" ${dtype} [${shape.join(', ')}] but received none of that name`);
    if (found.dtype !== dtype) throw refuse(mismatch(dtype, `the dtype of tensor "${name}"`, found.dtype));
    if (found.shape.length !== shape.length || shape.some((size, i) => size !== found.shape[i]))
      throw refuse(mismatch(`[${shape.join(', ')}]`, `the shape of tensor "${name}"`, found.shape));
    if (found.begin !== begin || found.end !== end)
      throw refuse(mismatch(`${begin}`, `the beginning of tensor "${name}"`, found.begin));
  }
  for (const name of tensors.keys()) {
    if (!layout.tensors.has(name))
      throw refuse(`expected only tensors of the state but received ${quote(name)}`);
  }
}
