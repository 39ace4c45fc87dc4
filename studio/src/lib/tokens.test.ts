import { expect, test } from 'vitest';

import { asText, idsOf, withIds } from './tokens';

test('tokens survive as the text of a passage', () => {
  expect(idsOf(asText([1, 0, 49151]))).toEqual([1, 0, 49151]);
  expect(idsOf(asText([7]))).toEqual([7]);
});

test('no text of a user is taken for tokens', () => {
  for (const text of ['', '1,2,3', '\ue000', '\ue0001,', '\ue0001,a', 'a\ue0001', '\ue0001\n', null]) expect(idsOf(text)).toBeNull();
});

test('a question about tokens has ids instead of a text', () => {
  expect(withIds({ run: 'a', text: asText([1, 2]), step: 3 })).toEqual({ run: 'a', text: undefined, ids: [1, 2], step: 3 });
  const question = { run: 'a', text: 'plain' };
  expect(withIds(question)).toBe(question);
  expect(withIds({ run: 'a' })).toEqual({ run: 'a' });
});
