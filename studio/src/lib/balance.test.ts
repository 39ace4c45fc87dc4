import { expect, test } from 'vitest';

import { balances, least } from './balance';
import { Column } from './record.svelte';

function column(values: [number, number | null][]): Column {
  const made = new Column();
  for (const [step, value] of values) made.add(step, value);
  return made;
}

test('both changes are since the first step that scored both texts', () => {
  const found = balances(column([[0, 2], [5, 1.5], [10, 1.25], [20, 1.5]]), column([[5, 1], [10, 1.5], [20, 1.25]]));
  expect(found).toEqual([
    { step: 5, heldOut: 0, reference: 0, total: 0 },
    { step: 10, heldOut: -0.25, reference: 0.5, total: 0.25 },
    { step: 20, heldOut: 0, reference: 0.25, total: 0.25 },
  ]);
  expect(least(found)?.step).toBe(5);
  expect(least(found.slice(1))?.step).toBe(10); // the earliest of equal ones
});

test('a sum that is no number is never the least', () => {
  const found = balances(column([[0, 2], [5, null], [10, 1.5]]), column([[0, 1], [5, 1], [10, 1]]));
  expect(found[1]!.total).toBeNaN();
  expect(least(found)?.step).toBe(10);
  expect(least([])).toBeNull();
  expect(balances(column([[0, 2]]), column([]))).toEqual([]);
});
