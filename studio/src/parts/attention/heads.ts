/** Heads of attention, and in which order they are shown. */

import type { PromptAnswer } from '../../lib/generated';

/** A share that is not finite comes as null. */
export interface Head {
  layer: number;
  head: number;
  previous: number | null;
  first: number | null;
  itself: number | null;
  entropy: number | null;
  induction: number | null;
  here: number | null; // induction on this text
  kind: string;
}

/** The heads whose patterns came with the answer, kind by kind, or in an order of their own. */
export function drawnHeads(prompt: PromptAnswer, order: Order): { head: Head; pattern: (number | null)[][] }[] {
  const patterns = new Map((prompt.drawn ?? []).map((one) => [`${one.layer}.${one.head}`, one.pattern]));
  const known = new Map(headsOf(prompt).map((head) => [`${head.layer}.${head.head}`, head]));
  const all = [...patterns.keys()].flatMap((key) => known.get(key) ?? []);
  const heads = order === 'layer' ? all.toSorted((a, b) => a.layer - b.layer || a.head - b.head) : ordered(all, order);
  return heads.map((head) => ({ head, pattern: patterns.get(`${head.layer}.${head.head}`)! }));
}

export const ORDERS = {
  kind: 'by kind',
  layer: 'by layer',
  previous: 'previous token',
  first: 'first token',
  itself: 'itself',
  induction: 'induction',
  entropy: 'sharpest first',
} as const;
export type Order = keyof typeof ORDERS;

export function headsOf(prompt: PromptAnswer): Head[] {
  return (prompt.heads ?? []).map((head) => ({ ...head, induction: prompt.induction?.scores[head.layer]?.[head.head] ?? null }));
}

/** Of equal ones the earlier comes first. */
export function ordered(heads: readonly Head[], order: Order): Head[] {
  if (order === 'layer' || order === 'kind') return [...heads];
  const key = (head: Head) => (order === 'entropy' ? -(head.entropy ?? Infinity) : (head[order] ?? -Infinity));
  return [...heads].sort((a, b) => compared(key(b), key(a)) || a.layer - b.layer || a.head - b.head);
}

/** Which is larger; infinities are equal to themselves, which a difference would not say. */
function compared(a: number, b: number): number {
  return a === b ? 0 : a < b ? -1 : 1;
}

/** A picture's numbers in one piece: JSON has null for what is not finite, and that must not become zero. */
export function flattened(rows: readonly (readonly (number | null)[])[]): Float32Array {
  return Float32Array.from(rows.flat(), (value) => value ?? NaN);
}

/** What a head does most, when that is a good part of what it does; by shares of its attention. */
export function kindOf(head: Head): { name: string; share: number } | null {
  const shares: [string, number][] = [
    ['previous token', head.previous ?? 0],
    ['first token', head.first ?? 0],
    ['itself', head.itself ?? 0],
    ['induction', head.induction ?? 0],
  ];
  const [name, share] = shares.reduce((best, one) => (one[1] > best[1] ? one : best));
  return share >= 0.4 ? { name, share } : null;
}
