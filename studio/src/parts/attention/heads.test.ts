import { expect, test } from 'vitest';

import type { PromptAnswer } from '../../lib/generated';
import { drawnHeads, flattened, headsOf, kindOf, ordered } from './heads';

const prompt = {
  heads: [
    { layer: 0, head: 0, previous: 0.1, first: 0.8, itself: 0.05, entropy: 0.4 },
    { layer: 0, head: 1, previous: 0.6, first: 0.1, itself: 0.1, entropy: 0.9 },
    { layer: 1, head: 0, previous: 0.2, first: 0.2, itself: 0.2, entropy: 2.1 },
    { layer: 1, head: 1, previous: 0.2, first: 0.2, itself: 0.2, entropy: 2.1 },
  ],
  induction: { scores: [[0, 0.1], [0.7, 0.1]], chance: 0.02 },
} as unknown as PromptAnswer;

const names = (heads: { layer: number; head: number }[]) => heads.map(({ layer, head }) => `${layer}.${head}`);

test('heads are ordered by what they do; equal ones stay as they stand', () => {
  const heads = headsOf(prompt);
  expect(names(ordered(heads, 'layer'))).toEqual(['0.0', '0.1', '1.0', '1.1']);
  expect(names(ordered(heads, 'previous'))).toEqual(['0.1', '1.0', '1.1', '0.0']);
  expect(names(ordered(heads, 'induction'))[0]).toBe('1.0');
  expect(names(ordered(heads, 'entropy'))).toEqual(['0.0', '0.1', '1.0', '1.1']);
});

test('a head has a kind only when it is a good part of what it does', () => {
  const heads = headsOf(prompt);
  expect(heads.map((head) => kindOf(head)?.name ?? '')).toEqual([
    'first token', 'previous token', 'induction', '',
  ]);
});

test('a network without attention has none', () => {
  expect(headsOf({} as PromptAnswer)).toEqual([]);
});

test('what is not finite is neither zero nor a reason for disorder', () => {
  expect([...flattened([[0.5, null], [1, 0]])]).toEqual([0.5, NaN, 1, 0]);
  const broken = headsOf({ heads: [
    { layer: 0, head: 0, previous: null, first: null, itself: null, entropy: null },
    { layer: 0, head: 1, previous: null, first: null, itself: null, entropy: null },
    { layer: 0, head: 2, previous: 0, first: 1, itself: 0, entropy: 0 },
  ] } as unknown as PromptAnswer);
  expect(names(ordered(broken, 'entropy'))).toEqual(['0.2', '0.0', '0.1']);
  expect(names(ordered(broken, 'previous'))).toEqual(['0.2', '0.0', '0.1']);
  expect(kindOf(broken[0]!)).toBeNull();
});

test('the drawn heads come kind by kind, or in another order', () => {
  const drawn = [
    { layer: 1, head: 0, pattern: [[1]] },
    { layer: 0, head: 1, pattern: [[1]] },
    { layer: 0, head: 0, pattern: [[1]] },
  ];
  const shown = { ...prompt, drawn } as PromptAnswer;
  const order = (by: 'kind' | 'layer' | 'previous') => names(drawnHeads(shown, by).map(({ head }) => head));
  expect(order('kind')).toEqual(['1.0', '0.1', '0.0']);
  expect(order('layer')).toEqual(['0.0', '0.1', '1.0']);
  expect(order('previous')).toEqual(['0.1', '1.0', '0.0']);
  expect(drawnHeads(prompt, 'kind')).toEqual([]);
});
