/** What a run has gained and what it has cost since its first evaluation: the sum that `--stop-early` watches. */

import type { Column } from './record.svelte';

export interface Balance {
  step: number;
  heldOut: number; // change of bits per byte on held-out text
  reference: number; // the same on the reference text
  total: number;
}

/** The balance at each step that scored both texts, as `etude.run.gain_and_cost` has it. */
export function balances(heldOut: Column, reference: Column): Balance[] {
  const costs = new Map(reference.steps.map((step, i) => [step, reference.values[i] ?? NaN]));
  const both = heldOut.steps.flatMap((step, i) => (costs.has(step) ? [{ step, gain: heldOut.values[i] ?? NaN, cost: costs.get(step)! }] : []));
  const first = both[0];
  if (!first) return [];
  return both.map(({ step, gain, cost }) => ({ step, heldOut: gain - first.gain, reference: cost - first.cost, total: gain - first.gain + cost - first.cost }));
}

/** The one with the least sum, the earliest of equal ones. */
export function least(of: readonly Balance[]): Balance | null {
  const sum = (one: Balance) => (Number.isFinite(one.total) ? one.total : Infinity);
  return of.reduce<Balance | null>((best, one) => (best === null || sum(one) < sum(best) ? one : best), null);
}
