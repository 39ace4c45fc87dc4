import { describe, expect, it } from 'vitest';

import { RUNS } from './colors';
import { compared, MOST_RUNS, toggled } from './compared';
import type { Record_ } from './record.svelte';

const record = {} as Record_;
const names = Array.from({ length: 12 }, (_, i) => `run ${i}`);
const records = new Map(names.map((name) => [name, record]));

describe('compared runs', () => {
  it('have the colours in their order, eight at most, each run once', () => {
    const found = compared('own', record, ['run 1', 'own', 'run 1', ...names], records, 'light');
    expect(found).toHaveLength(MOST_RUNS);
    expect(found.slice(0, 2).map((run) => [run.name, run.color])).toEqual([['own', RUNS[0]!.color.light], ['run 1', RUNS[1]!.color.light]]);
  });
  it('keep their colour while another one is not read yet', () => {
    expect(compared('own', record, ['unread', 'run 2'], records, 'dark')[1]!.color).toBe(RUNS[2]!.color.dark);
  });
  it('are taken and left, and no ninth is taken', () => {
    expect(toggled(['a', 'b'], 'a')).toEqual(['b']);
    expect(toggled(['a'], 'b')).toEqual(['a', 'b']);
    expect(toggled(names.slice(0, 7), 'more')).toEqual(names.slice(0, 7));
  });
});
