/**
 * A passage that is given as tokens, such as those of a conversation with its special tokens. Wherever a passage is a
 * text, it is written as a mark and the numbers; a question to the server gets them as `ids`.
 */

import type { Question } from './generated';

const MARK = '\ue000'; // a private character: no text begins with it

export const asText = (ids: readonly number[]): string => MARK + ids.join(',');

/** The tokens of a passage; null for a text. */
export function idsOf(text: string | null): number[] | null {
  if (text === null || !/^\ue000\d+(,\d+)*$/.test(text)) return null;
  return text.slice(1).split(',').map(Number);
}

/** The question with tokens as `ids`, where its text stands for them. */
export function withIds<Q extends Question>(question: Q): Q {
  const ids = idsOf(question.text ?? null);
  return ids === null ? question : { ...question, text: undefined, ids };
}
