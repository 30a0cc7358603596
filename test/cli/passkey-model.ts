import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { FILLER, QUESTION, statementOf } from '../../lib/cli/passkey/task';
import { type TinyModelOptions, writeTinyModel } from '../support/tiny-model';

/** GPT-2's printable stand-ins for bytes. */
const ALPHABET = Array.from({ length: 256 }, (_, byte) => byte);
const isPlain = (byte: number) =>
  (byte > 32 && byte < 127) || (byte > 160 && byte < 173) || (byte > 173 && byte < 256);
const others = ALPHABET.filter((byte) => !isPlain(byte));
const standIn = (byte: number) => String.fromCharCode(isPlain(byte) ? byte : 256 + others.indexOf(byte));

/** A tokenizer.json of the form of the trained models': the task's words, digits one by one, and bytes. */
export function tokenizerJson() {
  const text = ['', ...FILLER, statementOf(''), QUESTION].join(' ').replace(/[.?]/g, ' ');
  const words = ['The', ...new Set(text.split(/ +/).filter(Boolean))].map((word, i) =>
    i === 0 ? word : standIn(32) + word,
  );
  const vocab = Object.fromEntries([...ALPHABET.map(standIn), ...words].map((token, id) => [token, id]));
  const byteLevel = { type: 'ByteLevel', trim_offsets: true, use_regex: true };
  return {
    version: '1.0',
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: '\\d' }, behavior: 'Isolated', invert: false },
        { ...byteLevel, add_prefix_space: false },
      ],
    },
    post_processor: null,
    decoder: { ...byteLevel, add_prefix_space: true },
    model: { type: 'BPE', ignore_merges: true, byte_fallback: false, fuse_unk: false, vocab, merges: [] },
  };
}

/** A small random model that knows the task's words, and nothing of the task. */
export async function writePasskeyModel(directory: string, options: TinyModelOptions = {}): Promise<void> {
  const tokenizer = tokenizerJson();
  const vocabulary = Object.keys(tokenizer.model.vocab).length;
  await writeTinyModel(directory, { rule: 'linear', segmentLength: 16, ...options, vocabulary });
  await writeFile(path.join(directory, 'tokenizer.json'), JSON.stringify(tokenizer));
}
