/**
 * Formulas that come as text, such as an update rule's: "m̂ = m / (1 - β₁ᵗ)". Letters become names, ₁ and ² go down and up,
 * √ and a fraction bar take the one thing beside them, or what stands in brackets there.
 */

import { atom, frac, hat, root, row, sub, subsup, sup } from './mathml';

const HAT = '\u0302';
const BELOW = '₀₁₂₃₄₅₆₇₈₉';
const ABOVE: Record<string, string> = { '⁰': '0', '¹': '1', '²': '2', '³': '3', '⁴': '4', '⁵': '5', '⁶': '6', '⁷': '7', '⁸': '8', '⁹': '9', 'ᵀ': 'T', 'ᵗ': 't', 'ⁿ': 'n' };
const TOKEN = new RegExp(`\\s+|[\\p{L}--[ᵀᵗⁿ]]+${HAT}?|[\\d.]+|[^\\s]`, 'gv');

/** One formula as MathML. What is between brackets that do not match is set as it stands. */
export function formula(text: string): string {
  const tokens = (text.match(TOKEN) ?? []).filter((token) => token.trim() !== '');
  let at = 0;

  function group(): string[] {
    const found: string[] = [];
    while (at < tokens.length && tokens[at] !== ')') found.push(...one());
    return found;
  }

  /** A name, a number or a sign with what stands at its feet and shoulders; brackets with all that is in them. */
  function one(bare = false): string[] {
    const token = tokens[at++]!;
    if (token === '√') return [root(row(...(at < tokens.length ? one(true) : [])))];
    if (token === '(') {
      const inside = group();
      if (tokens[at] === ')') at++;
      return fraction(bare || tokens[at] === '/' ? inside : ['(', ...inside, ')']);
    }
    let base = token.endsWith(HAT) ? hat(token.slice(0, -1)) : token === '-' ? '−' : token;
    let below = '', above = '';
    for (; BELOW.includes(tokens[at] ?? '!'); at++) below += BELOW.indexOf(tokens[at]!);
    for (; (tokens[at] ?? '') in ABOVE; at++) above += ABOVE[tokens[at]!];
    if (below && above) base = subsup(base, below, above);
    else if (below) base = sub(base, below);
    else if (above) base = sup(base, above);
    return bare ? [base] : fraction([base]);
  }

  function fraction(over: string[]): string[] {
    if (tokens[at] !== '/' || at + 1 >= tokens.length) return over;
    at++;
    return [frac(row(...over), row(...one(true)))];
  }

  const parts: string[] = [];
  while (at < tokens.length) parts.push(...group(), ...(at < tokens.length ? [atom(tokens[at++]!)] : []));
  return row(...parts);
}
