import { describe, expect, it } from 'vitest';

import type { RunFacts } from '../lib/generated';
import { parse, VIEWS } from '../lib/selection.svelte';
import { left, secondsOf, STOPS, waitsFor } from './tour';

const RUN: RunFacts = {
  name: 'first', state: 'running', step: 12, num_steps: 400, reason: '', heartbeat: 1, now: 2, paused: false, control: true, fork: true, schema_known: true, published: null, history: null, base: null,
  model: {
    family: 'llama', attention: true, layers: 3, width: 64, nodes: 192, heads: 4, kv_heads: 4, vocabulary: 517, context: 128, activation: 'silu', gated: true,
    biases: true, parameters: 123_456, tied: false, window: 1, node_layers: [],
  },
  optimizer: 'muon', sources: [], uniform_loss: Math.log(517),
  ladder: [{ order: 0, name: 'pure guessing', loss: 6.2, bits_per_byte: 4 }, { order: 1, name: 'frequencies', loss: 5, bits_per_byte: 3 }],
  checkpoints: [0], first_step: 1, last_step: 12, compiled: false, turns: false,
};
const OTHERS: [string, RunFacts][] = [
  ['a run', RUN],
  ['a finished run of unknown shape', { ...RUN, state: 'finished', model: null, uniform_loss: null, ladder: [], num_steps: null, optimizer: '' }],
  ['a network without attention', { ...RUN, model: { ...RUN.model!, family: 'mlp', attention: false, layers: 1, gated: false, window: 8 } }],
  ['a model without biases', { ...RUN, model: { ...RUN.model!, biases: false, layers: 1 } }],
];

describe('the tour', () => {
  it('goes through all that it has to, in this order', () => {
    const order = ['language-model', 'node', 'weight', 'bias', 'forward', 'desired', 'loss', 'backward', 'update', 'loop', 'scale', 'emergence'];
    expect(STOPS.map((stop) => stop.id).filter((id) => order.includes(id))).toEqual(order);
    expect(new Set(STOPS.map((stop) => stop.id)).size).toBe(STOPS.length);
  });

  it.each(STOPS)('$id shows a view there is', (stop) => {
    const now = parse('');
    const wanted = stop.shows(now);
    expect(VIEWS).toContain(wanted.view);
    for (const key of Object.keys(wanted)) expect(Object.keys(now)).toContain(key);
  });

  it('meets every view, and leaves a chosen token alone', () => {
    expect(new Set(STOPS.map((stop) => stop.shows(parse('')).view)).size).toBeGreaterThanOrEqual(VIEWS.length - 1);
    for (const stop of STOPS) expect(stop.shows(parse('#/step?p=3')).token ?? 3).toBe(3);
  });

  it.each(OTHERS)('says something whole of %s', (_, run) => {
    for (const stop of STOPS) {
      for (const text of [stop.title, stop.act, ...stop.text(run)]) {
        expect(text.trim(), stop.id).not.toBe('');
        expect(text, stop.id).not.toMatch(/undefined|null|NaN|\[object| {2}|\.\./);
      }
      expect(stop.text(run).join(' ').split(' ').length, stop.id).toBeLessThan(130);
    }
  });

  it('says the numbers of the run, and never of another', () => {
    const text = (run: RunFacts) => STOPS.flatMap((stop) => stop.text(run)).join(' ');
    for (const own of ['first', '517', '192', '123,456', '6.25']) expect(text(RUN)).toContain(own);
    expect(text({ ...RUN, name: 'x', step: 0, num_steps: null, model: null, uniform_loss: null, ladder: [] }).replace('lap 0', '')).not.toMatch(/\d/);
    expect(text(OTHERS[3]![1])).toContain('without biases');
    expect(text(OTHERS[2]![1])).not.toContain('attention brings');
  });

  it('takes about ten minutes', () => {
    const minutes = STOPS.reduce((sum, stop) => sum + secondsOf(stop, RUN), 0) / 60;
    expect(minutes).toBeGreaterThan(8);
    expect(minutes).toBeLessThan(14);
    expect(left(0, RUN)).toBe(`about ${Math.round(minutes)} minutes left`);
    expect(left(STOPS.length - 1, RUN)).toMatch(/minute left$/);
  });

  it('waits for a run that can be opened', () => {
    expect(waitsFor(RUN)).toBe('');
    expect(waitsFor(null)).toContain('etude train');
    for (const state of ['not begun', 'starting', 'running'] as const) expect(waitsFor({ ...RUN, state, last_step: 0 })).toContain('by itself');
    expect(waitsFor({ ...RUN, state: 'failed', last_step: 0 })).toContain('ended');
  });
});
