import { InvalidArgumentError } from 'commander';

/** A whole number in [least, most]; what the library says about it comes later. */
export function whole(least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most) {
      const upTo = most === Number.MAX_SAFE_INTEGER ? '' : ` and at most ${most}`;
      throw new InvalidArgumentError(`expected a whole number of at least ${least}${upTo}.`);
    }
    return value;
  };
}

/** As `whole`, for a list separated by commas. */
export function wholes(least: number): (text: string) => number[] {
  const one = whole(least);
  return (text) => text.split(',').map((part) => one(part));
}

export function positive(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value <= 0) {
    throw new InvalidArgumentError('expected a number above 0.');
  }
  return value;
}
