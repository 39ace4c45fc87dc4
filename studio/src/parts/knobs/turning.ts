/** Knobs as text, `NAME[INDEX]@POSITION` and then `=VALUE`, `*FACTOR` or `+AMOUNT`: see etude.watch.knobs. */

export type How = '=' | '*' | '+';
export interface Turned {
  target: string; // NAME[INDEX]@POSITION
  name: string;
  how: How;
  value: number;
}

const FORM =
  /^(?<name>[A-Za-z_][\w.]*)(?<index>\[\d+(?:\s*,\s*\d+)*\])?(?<position>@\d+)?\s*(?<how>[=*+])\s*(?<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)$/;

/** What a knob turns and how far; null when the text turns nothing. */
export function parseKnob(knob: string): Turned | null {
  const found = FORM.exec(knob.trim())?.groups;
  if (!found) return null;
  const value = Number(found.value);
  if (!Number.isFinite(value)) return null;
  const target = `${found.name}${(found.index ?? '').replace(/\s/g, '')}${found.position ?? ''}`;
  return { target, name: found.name!, how: found.how as How, value };
}

/** The same with a knob turned: one that turns the same thing makes room for it, in its place. */
export function withKnob(knobs: readonly string[], knob: string): string[] {
  const target = parseKnob(knob)?.target;
  const place = target === undefined ? knobs.indexOf(knob) : knobs.findIndex((other) => parseKnob(other)?.target === target);
  return place < 0 ? [...knobs, knob] : knobs.map((other, i) => (i === place ? knob : other));
}

export function withoutTarget(knobs: readonly string[], target: string): string[] {
  return knobs.filter((knob) => parseKnob(knob)?.target !== target);
}

/** How a thing is turned now, if it is. */
export function turnedOn(knobs: readonly string[], target: string): Turned | null {
  for (const knob of knobs) {
    const parsed = parseKnob(knob);
    if (parsed?.target === target) return parsed;
  }
  return null;
}

/** The knobs that no checkpoint can keep: those of activations, which are there only while a text is read. */
export function notKept(knobs: readonly string[], parameters: readonly string[]): string[] {
  if (parameters.length === 0) return []; // not known yet: the server will say
  const known = new Set(parameters);
  return knobs.filter((knob) => !known.has(parseKnob(knob)?.name ?? ''));
}

/** In a few words. */
export function inWords(knob: string): string {
  const parsed = parseKnob(knob);
  if (!parsed) return 'changes nothing';
  const { how, value } = parsed;
  if (how === '*') return value === 0 ? 'switched off' : `times ${value}`;
  if (how === '=') return `set to ${value}`;
  return value < 0 ? `lowered by ${-value}` : `raised by ${value}`;
}
