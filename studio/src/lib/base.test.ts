import { expect, test } from 'vitest';

import { besideBase, changed } from './base';
import { Record_ } from './record.svelte';

function recordOf(val: [number, number][], reference: [number, number][]): Record_ {
  const record = new Record_();
  for (const [step, value] of val) record.val.add(step, value);
  for (const [step, value] of reference) record.reference.add(step, value);
  return record;
}

test('the base is step 0, and the run its newest evaluation', () => {
  const [held, reference] = besideBase(recordOf([[0, 3], [10, 2.5], [20, 2.4]], [[0, 2], [20, 2.1]]));
  expect(held).toEqual({ text: 'held-out text', base: 3, run: { step: 20, value: 2.4 } });
  expect(reference).toMatchObject({ base: 2, run: { step: 20, value: 2.1 } });
});

test('before the first evaluation there is only the base, and without step 0 there is none', () => {
  expect(besideBase(recordOf([[0, 3]], []))).toEqual([{ text: 'held-out text', base: 3, run: null }]);
  expect(besideBase(recordOf([[40, 3], [50, 2]], []))).toEqual([]);
});

test('a change is a share of the base', () => {
  expect(changed(2, 1.5)).toBe('25.0 % lower');
  expect(changed(2, 2.1)).toBe('5.0 % higher');
  expect(changed(2, 2.0001)).toBe('the same');
});
