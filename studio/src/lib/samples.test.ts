import { describe, expect, it } from 'vitest';

import { grow, plain } from './samples';

const sample = (step: number, text: string) => ({ event: 'sample' as const, step, prompt: 'p', text });

describe('plain', () => {
  it('makes seen what has no shape, and leaves letters and lines of every script', () => {
    expect(plain('a\u0003b\u202ec\n\té नि 👩\u200d🚀')).toBe('a·b·c\n\té नि 👩\u200d🚀');
  });
});

describe('grow', () => {
  it('finds the words that no sample before had', () => {
    const [first, second] = grow([sample(0, 'the cat, the qq'), sample(5, 'The cat don’t é zoë 1')]);
    expect(first!.fresh).toEqual(['the', 'cat', 'qq']);
    expect(second!.fresh).toEqual(['don’t', 'zoë']);
    expect(second!.words).toBe(4);
  });
  it('keeps every character of a sample, markup and what is no character alike', () => {
    for (const text of ['', '<b>bold</b> &amp; \ufffd\u0003\n\n "quote"', 'word', ' a '])
      expect(grow([sample(0, text)])[0]!.pieces.map((piece) => piece.text).join('')).toBe(text);
  });
  it('marks a word once, where it stands first', () => {
    expect(grow([sample(0, 'no no')])[0]!.pieces).toEqual([{ text: 'no', fresh: true }, { text: ' no', fresh: false }]);
  });
});
