import { expect, test } from 'vitest';

import { address, parse, type Selected, VIEWS } from './selection.svelte';

const NOTHING = parse('');

test('nothing chosen is the live view of the newest step', () => {
  expect(NOTHING).toMatchObject({ view: 'live', run: '', step: null, token: 0 });
  expect(address(NOTHING)).toBe('#/live');
});

test.each(VIEWS.map((view): [string, Selected] => [view, { ...NOTHING, view }]))('%s has an address', (_view, selected) => {
  expect(parse(address(selected))).toEqual(selected);
});

test.each<[string, Partial<Selected>]>([
  ['numbers', { view: 'step', step: 4096, row: 2, token: 20, layer: 1, unit: 137, input: 61, head: 3 }],
  ['step 0, which is not the newest', { step: 0 }],
  ['two steps that write beside each other', { view: 'chat', step: 40, beside: 0 }],
  ['a run with a name that means something in addresses', { run: 'my run/ä?&=#%+.1' }],
  ['a tensor, its picture and one of its numbers', { view: 'layers', tensor: 'model.layers.0.mlp.up_proj.weight', picture: 'since_start', picked: '3,17' }],
  ['a scene', { view: 'step', scene: 4 }],
  ['how a text was drawn', { view: 'chat', draw: '0.8,0.95,7,12' }],
  ['text of any kind', { view: 'predictions', text: 'Once\n<b>&run=x#?</b> 🦊 + % \u202e' }],
  ['several runs and knobs', { compare: ['a', 'b & c', 'd=e'], knobs: ['head 0.1 off', 'node 2.17 = 0'] }],
])('the address holds the selection: %s', (_what, changes) => {
  const selected = { ...NOTHING, ...changes };
  expect(parse(address(selected))).toEqual(selected);
});

test('what is no number or no view is left aside', () => {
  expect(parse('#/nowhere?s=abc&r=-1&p=1e9&l=99999999999999&n=3')).toEqual({ ...NOTHING, unit: 3 });
});

test('a typed question mark belongs to the text', () => {
  expect(parse('#/chat?run=a&text=Who has it? She?&b=3')).toMatchObject({ run: 'a', text: 'Who has it? She?', beside: 3 });
});

test('two readings share no lists', () => {
  parse('').knobs.push('x');
  expect(parse('').knobs).toEqual([]);
});
