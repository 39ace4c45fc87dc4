/** A formula of an update rule as text, with its numbers in the places of their names. */

import type { Formula } from '../../lib/generated';
import type { Sized } from '../../lib/arithmetic';
import { exact } from '../../lib/format';

const SIGNS: Record<string, string> = { '+': '+', '-': '−', '*': '×', '/': '÷', '^': '^' };
const RANKS: Record<string, number> = { '+': 1, '-': 1, '*': 2, '/': 2, '^': 3 };

const rank = (formula: Formula): number => (Array.isArray(formula) ? (RANKS[formula[0]] ?? 4) : 4);

export function written(formula: Formula, known: Map<string, Sized>): string {
  if (typeof formula === 'number') return exact(formula);
  if (typeof formula === 'string') return exact(known.get(formula)?.value ?? NaN);
  const [operation, ...parts] = formula;
  const texts = parts.map((part) => written(part, known));
  const mine = RANKS[operation];
  if (mine === undefined) return operation === 'sqrt' ? `√${rank(parts[0]!) < 4 ? `(${texts[0]})` : texts[0]}` : `${operation}(${texts[0]})`;
  if (operation === '^') {
    const base = typeof parts[0] === 'number' ? texts[0] : `(${texts[0]})`;
    return parts[1] === 2 ? `${base}²` : `${base}^${texts[1]}`;
  }
  const [left, right] = parts.map((part, i) => {
    const looser = rank(part) < mine || (i === 1 && rank(part) === mine && '-/'.includes(operation));
    return looser ? `(${texts[i]})` : texts[i];
  });
  return `${left} ${SIGNS[operation]} ${right}`;
}
