import { describe, expect, it } from 'vitest';

import { instead, written } from './branches';

const others = [{ id: 2, text: ' dog', probability: 0.5 }, { id: 1, text: ' cat', probability: 0.2 }];
const cat = written({ id: 1, text: ' cat', probability: 0.2, others });

describe('a continuation', () => {
  it('has each token of the odds once, the likeliest first', () => {
    expect(cat.odds.map((odd) => odd.id)).toEqual([2, 1]);
    expect(cat.taken).toBe(false);
  });
  it('goes another way from a place, and can be turned back there', () => {
    const way = instead([cat, cat, cat], 1, 2);
    expect(way.map((token) => [token.id, token.taken])).toEqual([[1, false], [2, true]]);
    expect(instead(way, 1, 1).map((token) => token.id)).toEqual([1, 1]);
    expect(() => instead([cat], 0, 9)).toThrow();
    expect(() => instead([cat], 3, 1)).toThrow();
  });
});
