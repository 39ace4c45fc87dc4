import { describe, expect, it } from 'vitest';

import { along, found, measured, rowsOf, sorted } from './sorting';

// 3 tokens, 4 neurons: always on, one token only, dead, and negative.
const activations = {
  post: Float32Array.from([1, 0, 0, -2, 1, 6, 0, -2, 1, 0, 0, -3]),
  tokens: 3,
  nodes: 4,
};
const outgoing = [1, 1, 1, 2];
const texts = ['', ' the', ' sea'];

describe('neurons', () => {
  const measures = measured(activations, outgoing);

  it('are measured along the text', () => {
    expect([...measures.loudness].map((v) => Number(v.toFixed(4)))).toEqual([1, 2, 0, 4.6667]);
    expect([...measures.selectivity].map((v) => Number(v.toFixed(3)))).toEqual([1, 3, 0, 1.286]);
    expect([...measures.largest]).toEqual([1, 6, 0, -3]);
  });
  it('are sorted', () => {
    expect(sorted('natural', measures, null)).toEqual([0, 1, 2, 3]);
    expect(sorted('loudest', measures, null)).toEqual([3, 1, 0, 2]);
    expect(sorted('selective', measures, null)).toEqual([1, 3, 0, 2]);
    expect(sorted('quiet', measures, null)).toEqual([2, 0, 1, 3]);
    expect(sorted('changed', measures, [0, 5, 9, 5])).toEqual([2, 1, 3, 0]);
    expect(sorted('changed', measures, null)).toEqual([0, 1, 2, 3]);
  });
  it('are not put in disorder by numbers that are not finite', () => {
    const broken = measured({ post: Float32Array.from([NaN, 1, Infinity, 2]), tokens: 2, nodes: 2 }, [1, 1]);
    expect([...broken.loudness]).toEqual([0, 1.5]);
    expect(sorted('loudest', broken, null)).toEqual([1, 0]);
  });
  it('are found by number, or by the text that they answer to', () => {
    expect(found('2', activations, texts, outgoing)).toEqual({ order: [2], at: [] });
    expect(found('THE', activations, texts, outgoing)).toEqual({ order: [1, 3, 0, 2], at: [1] });
    expect(found('', activations, texts, outgoing)).toBeNull();
    expect(found('whale', activations, texts, outgoing)).toBeNull();
    expect(found('9', activations, texts, outgoing)).toBeNull();
  });
  it('draw themselves along the text', () => {
    expect(along(activations, 1)).toEqual([0, 6, 0]);
    expect([...rowsOf(activations, [3, 0])]).toEqual([-2, -2, -3, 1, 1, 1]);
  });
});
