import { describe, expect, it } from 'vitest';

import { changes, mostChanged } from './hurt';

describe('tokens that are hurt', () => {
  it('have the change of their loss, where both are finite', () => {
    expect(changes([1, 2, null, 4], [3, 1, 1, null])).toEqual([2, -1, null, null]);
  });
  it('are those that change most, helped ones too', () => {
    const found = mostChanged(['', 'a', 'b', 'c', 'd'], [1, 2, 3, null], [1, 4, 0, 1], 5);
    expect(found.map(({ token, change, position }) => [token, change, position])).toEqual([['c', -3, 3], ['b', 2, 2]]);
    expect(mostChanged(['', 'a', 'b', 'c', 'd'], [1, 2, 3, null], [1, 4, 0, 1], 1)).toHaveLength(1);
  });
});
