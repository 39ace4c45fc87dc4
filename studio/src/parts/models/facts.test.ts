import { expect, test } from 'vitest';

import type { RunFacts } from '../../lib/generated';
import { factsOf } from './facts';

const facts = {
  model: { attention: true, layers: 30, width: 576, heads: 9, kv_heads: 3, vocabulary: 49152, context: 8192, parameters: 134515008, tied: true },
  published: { source: 'a.gguf', licence: null, rounding: 'Q4_1', chat_template: false, train: '' },
} as unknown as RunFacts;

test('every fact has a line, and what is not stated is said', () => {
  const lines = new Map(factsOf(facts));
  expect(lines.get('Parameters')).toBe('134,515,008; the output matrix is the embedding (tied)');
  expect(lines.get('Heads per layer')).toBe('9, which share 3 keys and values');
  expect(lines.get('Licence')).toBe('not stated');
  expect(lines.get('Weights')).toContain('Q4_1');
  expect(factsOf({ ...facts, model: { ...facts.model!, kv_heads: 9 } }).find(([name]) => name === 'Heads per layer')![1]).toBe('9');
});

test('a run has none of them', () => {
  expect(factsOf({ ...facts, published: null })).toEqual([]);
});
