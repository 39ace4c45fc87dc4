/** Heads of attention, and in which order they are shown. */

import type { PromptAnswer } from '../../lib/contract';

export interface Head {
  layer: number;
  head: number;
  previous: number;
  first: number;
  itself: number;
  entropy: number;
  induction: number | null;
}

export const ORDERS = {
  layer: 'by layer',
  previous: 'the token before',
  first: 'the first token',
  itself: 'the token itself',
  induction: 'what came after the same before',
  entropy: 'sharpest first',
} as const;
export type Order = keyof typeof ORDERS;

export function headsOf(prompt: PromptAnswer): Head[] {
  return (prompt.heads ?? []).map((head) => ({ ...head, induction: prompt.induction?.scores[head.layer]?.[head.head] ?? null }));
}

/** Of equal ones the earlier comes first. */
export function ordered(heads: readonly Head[], order: Order): Head[] {
  if (order === 'layer') return [...heads];
  const key = (head: Head) => (order === 'entropy' ? -head.entropy : (head[order] ?? 0));
  return [...heads].sort((a, b) => key(b) - key(a) || a.layer - b.layer || a.head - b.head);
}

/** What a head does most, when that is a good part of what it does; by shares of its attention. */
export function kindOf(head: Head): { name: string; share: number } | null {
  const shares: [string, number][] = [
    ['the token before', head.previous],
    ['the first token', head.first],
    ['the token itself', head.itself],
    ['what came after the same before', head.induction ?? 0],
  ];
  const [name, share] = shares.reduce((best, one) => (one[1] > best[1] ? one : best));
  return share >= 0.4 ? { name, share } : null;
}
