/** A continuation of a prompt as it is written, token by token, and the ways that were not taken. */

import type { TokenLine } from './generated';

export interface Odd {
  id: number;
  text: string;
  probability: number;
}
export interface Written {
  id: number;
  text: string;
  probability: number;
  odds: Odd[]; // this token and the likeliest others, the likeliest first
  taken: boolean; // by the reader, not drawn
}

export function written({ id, text, probability, others }: TokenLine['token']): Written {
  const odds = [{ id, text, probability }, ...others.filter((other) => other.id !== id)];
  odds.sort((a, b) => b.probability - a.probability);
  return { id, text, probability, odds, taken: false };
}

/** Everything up to a place, and there another token. */
export function instead(tokens: readonly Written[], position: number, id: number): Written[] {
  const there = tokens[position];
  const other = there?.odds.find((odd) => odd.id === id);
  if (!there || !other) throw new Error('that token was not among the odds');
  return [...tokens.slice(0, position), { ...there, ...other, taken: true }];
}
