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

/** A number of tokens: a whole number, also with K (1,024) or M (1,048,576) behind it. */
export function length(least: number, most: number): (text: string) => number {
  return (text) => {
    const [, digits, unit] = /^(\d+)([KM]?)$/i.exec(text) ?? [];
    const value =
      Number(digits) * { '': 1, K: 2 ** 10, M: 2 ** 20 }[(unit ?? '').toUpperCase() as '' | 'K' | 'M'];
    if (digits === undefined || value < least || value > most) {
      const what = `expected a whole number from ${least} to ${most}, or one with K or M such as 32K`;
      throw new InvalidArgumentError(`${what}.`);
    }
    return value;
  };
}

/** As `length`, for a list separated by commas: ascending, each once. */
export function lengths(least: number, most: number): (text: string) => number[] {
  const one = length(least, most);
  return (text) => [...new Set(text.split(',').map((part) => one(part.trim())))].sort((a, b) => a - b);
}

/** A list of some of the choices, separated by commas, in the order of the choices. */
export function choices<T extends string>(all: readonly T[]): (text: string) => T[] {
  return (text) => {
    const given = text.split(',').map((part) => part.trim());
    const wrong = given.find((one) => !all.includes(one as T));
    if (wrong === undefined) return all.filter((one) => given.includes(one));
    throw new InvalidArgumentError(`expected some of ${all.join(', ')} but received '${wrong}'.`);
  };
}

/** A number in [least, most]. */
export function number(least: number, most = Number.POSITIVE_INFINITY): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === '' || !Number.isFinite(value) || value < least || value > most) {
      const upTo = most === Number.POSITIVE_INFINITY ? '' : ` and at most ${most}`;
      throw new InvalidArgumentError(`expected a number of at least ${least}${upTo}.`);
    }
    return value;
  };
}

export function positive(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value <= 0) {
    throw new InvalidArgumentError('expected a number above 0.');
  }
  return value;
}
