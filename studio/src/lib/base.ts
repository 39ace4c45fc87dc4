/** A run beside the model that it began with, which is its step 0. */

import type { Record_ } from './record.svelte';

export interface BesideBase {
  text: string;
  base: number; // nats per token, at step 0
  run: { step: number; value: number } | null; // of the newest evaluation behind it
}

/** A row for each text that both were measured on; none where the record does not begin with step 0. */
export function besideBase(record: Record_): BesideBase[] {
  return [
    { text: 'held-out text', column: record.val },
    { text: 'reference text', column: record.reference },
  ].flatMap(({ text, column }) => {
    const base = column.steps[0] === 0 ? column.values[0] : null;
    if (typeof base !== 'number') return [];
    const last = column.last();
    return [{ text, base, run: last && last.step > 0 ? last : null }];
  });
}

/** How far a loss is from another, such as "10.2 % lower". */
export function changed(from: number, to: number): string {
  const share = (to / from - 1) * 100;
  if (!Number.isFinite(share)) return '';
  return Math.abs(share) < 0.05 ? 'the same' : `${Math.abs(share).toFixed(1)} % ${share < 0 ? 'lower' : 'higher'}`;
}
