export type Colour = readonly [red: number, green: number, blue: number];

// Viridis: even steps to the eye, and to eyes that do not tell red from green.
const STOPS: Colour[] = [
  [68, 1, 84],
  [59, 82, 139],
  [33, 145, 140],
  [94, 201, 98],
  [253, 231, 37],
];

/** The colour of a share, from 0 (dark) to 1 (bright). */
export function colourOf(share: number): Colour {
  const at = Math.min(1, Math.max(0, share)) * (STOPS.length - 1);
  const low = Math.min(STOPS.length - 2, Math.floor(at));
  const mixed = STOPS[low].map((from, i) => Math.round(from + (STOPS[low + 1][i] - from) * (at - low)));
  return mixed as unknown as Colour;
}

/** Whether black can be read on it better than white. */
export const isBright = ([red, green, blue]: Colour): boolean =>
  0.299 * red + 0.587 * green + 0.114 * blue > 140;

/** A text on a colour, for terminals of 256 colours: the nearest of their cube of six levels each. */
export function onColour(text: string, colour: Colour): string {
  const [red, green, blue] = colour.map((level) => Math.max(0, Math.round((level - 55) / 40)));
  const background = 16 + 36 * red + 6 * green + blue;
  return `\x1b[48;5;${background};38;5;${isBright(colour) ? 16 : 231}m${text}\x1b[0m`;
}
