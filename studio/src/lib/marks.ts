/** What becomes of each token of a row of examples: trained, read as context only, or padding. */

import type { RowPart } from './generated';

export interface Mark {
  kind: 'trained' | 'context' | 'padding';
  begins?: string; // the name of the part that begins here
  last?: string; // the token that is predicted after this one and not read
}

export const MEANINGS: readonly [Mark['kind'], string][] = [
  ['trained', 'the model learns to predict it'],
  ['context', 'read only'],
  ['padding', 'fills the row; nothing sees it'],
];

/** A mark for each token that is read; none for a row of plain text. */
export function marksOf(parts: readonly RowPart[]): Mark[] {
  let examples = 0;
  return parts.flatMap((part) => {
    const { kind, trained, last } = part;
    if (kind === 'example' || kind === 'chosen') examples += 1;
    const begins = kind === 'padding' ? 'padding' : kind === 'example' ? `example ${examples}` : `pair ${examples}, ${kind}`;
    return trained.map((counts, i): Mark => ({
      kind: kind === 'padding' ? 'padding' : counts ? 'trained' : 'context',
      ...(i === 0 ? { begins } : {}),
      ...(i === trained.length - 1 && last !== null ? { last } : {}),
    }));
  });
}

/** How many tokens of each kind, those that are predicted and not read among the trained ones. */
export function countsOf(marks: readonly Mark[]): Record<Mark['kind'], number> {
  const counts = { trained: 0, context: 0, padding: 0 };
  for (const mark of marks) {
    counts[mark.kind] += 1;
    if (mark.last !== undefined) counts.trained += 1;
  }
  return counts;
}
