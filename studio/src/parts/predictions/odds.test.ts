import { describe, expect, it } from 'vitest';

import { mean, odds, withDesired } from './odds';

describe('odds', () => {
  it('come from a loss, and from none that is not finite', () => {
    expect(odds(0)).toBe(1);
    expect(odds(Math.log(4))).toBeCloseTo(0.25);
    expect([null, undefined, NaN, Infinity].map(odds)).toEqual([null, null, null, null]);
  });
  it('have a mean of what is finite', () => {
    expect(mean([1, null, 3])).toBe(2);
    expect(mean([null, NaN])).toBeNull();
  });
});

describe('the guesses', () => {
  const guesses = [{ token: 3, text: ' a', probability: 0.5 }, { token: 4, text: ' b', probability: 0.25 }];

  it('mark the desired token among them', () => {
    expect(withDesired(guesses, { id: 4, text: ' b', loss: Math.log(4) }).map((g) => g.desired)).toEqual([false, true]);
  });
  it('add it where it is not', () => {
    const found = withDesired(guesses, { id: 9, text: ' z', loss: Math.log(10) });
    expect(found).toHaveLength(3);
    expect(found[2]).toMatchObject({ text: ' z', desired: true });
    expect(found[2]!.probability).toBeCloseTo(0.1);
  });
  it('stay as they are where nothing is desired, or its loss is not finite', () => {
    expect(withDesired(guesses, null)).toHaveLength(2);
    expect(withDesired(guesses, { id: 9, text: ' z', loss: null })).toHaveLength(2);
  });
});
