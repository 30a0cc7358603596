import type { Random } from '../random';
import { take } from '../source';

/** A pass key and where it is hidden: `token` is the first character of its sentence. */
export interface Needle {
  label: string;
  key: string;
  token: number;
}

export interface Plan {
  /** What opens a key in this document, and in another one that was never streamed. */
  marker: string;
  otherMarker: string;
  secrets: { label: string; key: string }[];
}

const words = (list: string) => list.split(' ');
const COLOURS = words(
  'amber azure bronze copper crimson golden green grey ivory jade ruby silver violet white',
);
const ANIMALS = words('badger crane falcon fox hare heron lynx marten otter owl raven stag swift wolf');
export const LABELS = words(
  'abbey archive attic bakery barn bridge cabin cellar chapel cottage depot ferry forge gallery garden granary ' +
    'harbour kitchen library lighthouse mill museum observatory orchard pantry pier quarry stable studio theatre ' +
    'tower workshop',
);

/** The marker phrase belongs to the document: only after it does a key open. */
export const markerOf = (name: string): string => `The ${name}'s pass key to the `;

const sentence = (marker: string, label: string, key: string) => `${marker}${label} is ${key}. `;

/** Draws the document's name, the labels and the pass keys; a marker never occurs in the text itself. */
export function drawPlan(random: Random, text: string, needles: number, digits: number): Plan {
  const names = COLOURS.flatMap((colour) => ANIMALS.map((animal) => `${colour} ${animal}`));
  const free = names.filter((name) => !text.includes(markerOf(name)));
  if (free.length < 2) throw new Error('the text already holds every marker phrase that the demo knows');
  const [own, other] = random.sample(free, 2);
  const digit = () => String(random.below(10));
  const secrets = random
    .sample(LABELS, needles)
    .map((label) => ({ label, key: Array.from({ length: digits }, digit).join('') }));
  return { marker: markerOf(own), otherMarker: markerOf(other), secrets };
}

/** The last start of a sentence at or before `at`; of a word, or `at` itself, where there is none near. */
function boundary(text: string, at: number): number {
  const stop = text.lastIndexOf('. ', at - 2);
  if (stop >= 0 && at - stop <= 1000) return stop + 2;
  const space = text.lastIndexOf(' ', at - 1);
  return space >= 0 && at - space <= 100 ? space + 1 : at;
}

/**
 * `tokens` characters of the text with the sentences hidden at even depths, the first at the very start and the last
 * two segments before the end: what is read back has then left the open segment.
 */
export function hide(
  text: string,
  plan: Plan,
  tokens: number,
  segment: number,
): { text: string; needles: Needle[] } {
  const sentences = plan.secrets.map(({ label, key }) => sentence(plan.marker, label, key));
  const added = sentences.reduce((sum, { length }) => sum + length, 0);
  const last = tokens - added - 2 * segment;
  if (last < 0) {
    const least = added + 2 * segment;
    throw new Error(`${tokens} tokens are too few: the pass keys and two segments take ${least}`);
  }
  const base = take(text, tokens - added);
  const pieces: string[] = [];
  const needles: Needle[] = [];
  let from = 0;
  let token = 0;
  for (const [i, secret] of plan.secrets.entries()) {
    const target = sentences.length === 1 ? last / 2 : (last * i) / (sentences.length - 1);
    const at = boundary(base, Math.floor(target));
    pieces.push(base.slice(from, at), sentences[i]);
    token += at - from;
    needles.push({ ...secret, token });
    token += sentences[i].length;
    from = at;
  }
  pieces.push(base.slice(from));
  return { text: pieces.join(''), needles };
}
