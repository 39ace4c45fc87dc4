import { describe, expect, it } from 'vitest';

import { alerts, rising } from './alerts';
import type { MetricRow } from './generated';

const series = (values: (number | null)[], every = 1) => ({ steps: values.map((_, i) => (i + 1) * every), values });
const falling = series(Array.from({ length: 100 }, (_, i) => 5 - i / 25));
const row = (event: string, step: number, more: Partial<MetricRow> = {}): MetricRow => ({ event, step, tokens_seen: 0, wall_time: 0, ...more });

describe('rising validation', () => {
  it('is reported when it lasts, is clear, and training falls', () => {
    expect(rising(series([4, 3, 3.1, 3.2, 3.3], 20), falling)).toEqual({ from: 40, lowest: 3, to: 100, now: 3.3 });
  });
  it('is not reported when it is short, small or falls again', () => {
    expect(rising(series([4, 3, 3.1, 3.2], 25), falling)).toBeNull();
    expect(rising(series([4, 3, 3.01, 3.01, 3.01], 20), falling)).toBeNull();
    expect(rising(series([4, 3, 3.4, 3.4, 2.9], 20), falling)).toBeNull();
    expect(rising(series([null, null], 20), falling)).toBeNull();
    expect(rising(series([], 20), falling)).toBeNull();
  });
  it('is not reported when training rises as well: that is another problem', () => {
    expect(rising(series([4, 3, 3.1, 3.2, 3.3], 20), series(falling.values.toReversed()))).toBeNull();
  });
});

describe('alerts', () => {
  const nothing = series([]);
  it('are none of a quiet record', () => {
    expect(alerts([row('rung', 1), row('end', 9)], falling, falling, nothing)).toEqual([]);
  });
  it('say spikes with their size, and what has none without', () => {
    expect(alerts([row('spike', 7, { loss: 9, usual: 4 })], nothing, nothing, nothing)[0]?.text).toContain('step 7: 9.000, where 4.000 was usual');
    expect(alerts([row('spike', 7), row('spike', 1200, { loss: null })], nothing, nothing, nothing)[0]?.text).toContain('2 steps, last at step 1,200.');
  });
  it('say numbers that are not finite once: a skipped step is not counted again', () => {
    const found = alerts([row('left_out', 2)], series([1, null, 1, null]), nothing, nothing);
    expect(found.map((alert) => [alert.kind, alert.steps])).toEqual([['skipped', [2]], ['not finite', [4]]]);
  });
  it('name three of many', () => {
    const [found] = alerts([1, 2, 3, 4, 5].map((step) => row('left_out', step)), nothing, nothing, nothing);
    expect(found?.steps).toEqual([3, 4, 5]);
    expect(found?.text).toContain('5 steps');
  });
});
