import { readFileSync } from 'node:fs';
import path from 'node:path';

/** The package's own folder: two levels above lib/cli as above dist/cli. */
export const packageRoot = path.join(__dirname, '..', '..');

export function packageVersion(): string {
  const manifest = JSON.parse(readFileSync(path.join(packageRoot, 'package.json'), 'utf8'));
  return String(manifest.version);
}
