import { expect, test } from 'vitest';
import { Record_ } from './record.svelte';
import type { MetricRow, Rows } from './generated';

const row = (event: string, step: number, loss: number): MetricRow => ({ event, step, tokens_seen: 10 * step, wall_time: step, loss, val_loss: loss });
const rows = (metrics: MetricRow[]): Rows => ({ metrics, samples: [], cursor: '1,0', every: 1, reset: false, more: false });

test('the reference text has a curve of its own, cut where a run resumes', () => {
  const record = new Record_();
  record.take(rows([row('reference', 0, 3), row('eval', 0, 2), row('step', 1, 2), row('step', 2, 1.9), row('reference', 2, 3.1), row('eval', 2, 1.8)]));
  expect(record.reference.steps).toEqual([0, 2]);
  expect(record.reference.values).toEqual([3, 3.1]);
  expect(record.val.values).toEqual([2, 1.8]);
  record.take(rows([row('step', 2, 1.7), row('reference', 2, 3.2)]));
  expect(record.reference.values).toEqual([3, 3.2]);
  record.take(rows([{ ...row('reference', 4, 1), digest: 'another text' }]));
  expect(record.reference.values).toEqual([1]);
});

test('sampled answers have curves of their own, cut where a run resumes', () => {
  const answers = (step: number, right: number): MetricRow => ({ ...row('reward', step, 0), right, ended: 1 });
  const record = new Record_();
  record.take(rows([row('step', 1, 0), answers(1, 0.25), row('step', 2, 0), answers(2, 0.5)]));
  expect(record.right.values).toEqual([0.25, 0.5]);
  record.take(rows([row('step', 2, 0), answers(2, 0.75)]));
  expect(record.right.values).toEqual([0.25, 0.75]);
  expect(record.ended.steps).toEqual([1, 2]);
});

test('chosen and rejected answers have curves of their own, cut where a run resumes', () => {
  const pairs = (step: number, chosen: number, rejected: number, accuracy: number): MetricRow => ({ ...row('preference', step, 0.6), chosen, rejected, accuracy, num_pairs: 8 });
  const record = new Record_();
  record.take(rows([pairs(0, -40, -50, 0), row('step', 1, 0.7), row('step', 2, 0.6), pairs(2, -42, -60, 0.75)]));
  expect(record.chosen.values).toEqual([-40, -42]);
  expect(record.rejected.values).toEqual([-50, -60]);
  expect(record.gained.values).toEqual([0, 0.75]);
  expect(record.numPairs).toBe(8);
  record.take(rows([row('step', 2, 0.6), pairs(2, -41, -61, 0.5)]));
  expect(record.chosen.values).toEqual([-40, -41]);
  expect(record.gained.values).toEqual([0, 0.5]);
});
