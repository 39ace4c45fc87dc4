/** What a sample has that none before it had. */

import type { SampleRow } from './generated';

export interface Piece {
  text: string;
  fresh: boolean;
}
export interface Grown {
  step: number;
  prompt: string;
  pieces: Piece[];
  words: number;
  fresh: string[];
}

// Letters and the marks and apostrophes inside a word; one letter alone is no word to be proud of.
const WORD = /\p{L}[\p{L}\p{M}'’]*[\p{L}\p{M}]/gu;

/** Text as it can be shown: what has no shape is a dot, lines and blanks stay. */
export function plain(text: string): string {
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, '·');
}

/** Samples in the order in which they were written, each with the words that no earlier sample has. */
export function grow(samples: readonly SampleRow[]): Grown[] {
  const seen = new Set<string>();
  return samples.map(({ step, prompt, text }) => {
    const here = new Set<string>();
    const pieces: Piece[] = [];
    let at = 0, words = 0;
    for (const match of text.matchAll(WORD)) {
      const word = match[0].toLowerCase();
      words++;
      if (seen.has(word) || here.has(word)) continue;
      here.add(word);
      if (match.index > at) pieces.push({ text: text.slice(at, match.index), fresh: false });
      pieces.push({ text: match[0], fresh: true });
      at = match.index + match[0].length;
    }
    if (at < text.length) pieces.push({ text: text.slice(at), fresh: false });
    for (const word of here) seen.add(word);
    return { step, prompt, pieces, words, fresh: [...here] };
  });
}
