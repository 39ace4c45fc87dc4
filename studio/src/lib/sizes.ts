/** Runs by the size of their model. */

import type { RunFacts } from './generated';
import type { Record_ } from './record.svelte';

export interface Sized {
  name: string;
  parameters: number | null;
  step: number;
  validation: number | null;
  bits: number | null;
  sources: string[];
}

export function sized(facts: RunFacts, record: Record_): Sized {
  return {
    name: facts.name,
    parameters: facts.model?.parameters ?? null,
    step: facts.step,
    validation: record.val.last()?.value ?? null,
    bits: record.bits.last()?.value ?? null,
    sources: [...facts.sources].sort(),
  };
}

/** Only runs on the same text can be held against each other. */
export function sameText(a: Sized, b: Sized): boolean {
  return a.sources.length === b.sources.length && a.sources.every((source, i) => source === b.sources[i]);
}

export interface Dot {
  run: Sized;
  x: number; // 0 to 1, by the logarithm of the size
  y: number; // 0 to 1, the lowest bits below
}

export function dots(runs: readonly Sized[]): { dots: Dot[]; sizes: [number, number]; bits: [number, number] } | null {
  const known = runs.filter((run) => run.bits !== null && run.parameters !== null && run.parameters > 0);
  if (known.length < 2) return null;
  const sizes = known.map((run) => run.parameters!), bits = known.map((run) => run.bits!);
  const [small, large, low, high] = [Math.min(...sizes), Math.max(...sizes), Math.min(...bits), Math.max(...bits)];
  const share = (value: number, from: number, to: number) => (to > from ? (value - from) / (to - from) : 0.5);
  return {
    dots: known.map((run) => ({ run, x: share(Math.log(run.parameters!), Math.log(small), Math.log(large)), y: share(run.bits!, low, high) })),
    sizes: [small, large],
    bits: [low, high],
  };
}
