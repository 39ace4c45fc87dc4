/** The runs that are on the same axes, each in the colour and dash that it has in every view. */

import { RUNS, type Theme } from './colors';
import type { Record_ } from './record.svelte';

export const MOST_RUNS = RUNS.length;

export interface Compared {
  name: string;
  record: Record_;
  color: string;
  dash: number[];
}

export function compared(name: string, record: Record_, others: readonly string[], records: ReadonlyMap<string, Record_>, theme: Theme): Compared[] {
  const names = [name, ...new Set(others.filter((other) => other !== name))].slice(0, MOST_RUNS);
  return names.flatMap((run, i) => {
    const found = i === 0 ? record : records.get(run);
    return found ? [{ name: run, record: found, color: RUNS[i]!.color[theme], dash: RUNS[i]!.dash }] : [];
  });
}

/** With one more or one fewer; the order of the others stays, and so do their colours as far as that is possible. */
export function toggled(others: readonly string[], name: string): string[] {
  return others.includes(name) ? others.filter((other) => other !== name) : [...others, name].slice(0, MOST_RUNS - 1);
}
