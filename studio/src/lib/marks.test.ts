import { expect, test } from 'vitest';
import type { RowPart } from './generated';
import { countsOf, marksOf } from './marks';

const parts: RowPart[] = [
  { kind: 'example', first: 0, trained: [false, false, true], last: '<|im_end|>' },
  { kind: 'example', first: 3, trained: [false, true], last: null },
  { kind: 'padding', first: 5, trained: [false, false], last: null },
];

test('every token has a mark, and a token that is predicted only stands behind the last of its part', () => {
  const marks = marksOf(parts);
  expect(marks.map((mark) => mark.kind)).toEqual(['context', 'context', 'trained', 'context', 'trained', 'padding', 'padding']);
  expect(marks.map((mark) => mark.begins)).toEqual(['example 1', undefined, undefined, 'example 2', undefined, 'padding', undefined]);
  expect(marks.map((mark) => mark.last)).toEqual([undefined, undefined, '<|im_end|>', undefined, undefined, undefined, undefined]);
  expect(countsOf(marks)).toEqual({ trained: 3, context: 3, padding: 2 });
});

test('both answers of a pair have its number', () => {
  const pair = (kind: RowPart['kind']): RowPart => ({ kind, first: 0, trained: [false, true], last: null });
  const begins = marksOf([pair('chosen'), pair('rejected'), pair('chosen'), pair('rejected')]).flatMap((mark) => mark.begins ?? []);
  expect(begins).toEqual(['pair 1, chosen', 'pair 1, rejected', 'pair 2, chosen', 'pair 2, rejected']);
});

test('a row of plain text has no marks', () => expect(marksOf([])).toEqual([]));
