import { readFileSync } from 'node:fs';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { packageRoot } from './package';

export interface SourceText {
  name: string;
  text: string;
}

const NOVEL = path.join(packageRoot, 'lib', 'cli', 'text', 'moby-dick.txt.gz');

/** One kind of white space, one way to write an accent: the rest of the text stays as it is. */
export function normalise(text: string): string {
  return text.normalize('NFC').replace(/\s+/g, ' ').trim();
}

/** The user's file, or the novel that comes with the package. */
export function loadText(file?: string): SourceText {
  const name = file ?? 'Moby-Dick; or, The Whale (Herman Melville, 1851)';
  const text = normalise(
    file ? readFileSync(file, 'utf8') : gunzipSync(readFileSync(NOVEL)).toString('utf8'),
  );
  if (text.length === 0) throw new Error(`${name} holds no text`);
  return { name, text };
}

/** The first `length` characters; a text that is too short starts again from its beginning. */
export function take(text: string, length: number): string {
  if (length <= text.length) return text.slice(0, length);
  return `${text} `.repeat(Math.ceil(length / (text.length + 1))).slice(0, length);
}
