/** The update rules of a run as concepts: each rule explains itself, also one that was added from outside. */

import type { RulesAnswer } from '../lib/generated';
import type { Concept } from './concept';
import { formula } from './linear';
import { lines } from './mathml';

export function conceptsOf(answer: RulesAnswer | null): Concept[] {
  return (answer?.rules ?? []).map(({ title, picture, stops, words, formulas, symbols, code }) => ({
    title, picture, stops, words, maths: lines(...formulas.map(formula)), symbols, code,
  }));
}
