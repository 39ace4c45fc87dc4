import { expect, test } from 'vitest';

import type { RunFacts } from '../../lib/generated';
import { stepRead } from '../predictions/passage.svelte';
import { sameAs } from './versions.svelte';

const history = { checkpoints: [10, 20, 25], first_step: 10, last_step: 25, history: { note: '', evaluate: '' } } as unknown as RunFacts;

test('between two saved versions the earlier one is shown, since nothing can be replayed', () => {
  expect([null, 3, 10, 19, 20, 24, 25, 900].map((step) => stepRead(history, step))).toEqual([25, 10, 10, 10, 20, 20, 25, 25]);
  expect(stepRead({ ...history, history: null }, 19)).toBe(19);
});

test('a copy is named by its hash', () => {
  expect(sameAs({ step: 1025, name: 'step1025', same_as: 20, weights: '0011223344556677' })).toBe('Step 1,025 has the same weights as step 20 (0011223344556677).');
  expect(sameAs({ step: 20, name: 'step20', same_as: null, weights: null })).toBe('');
});
