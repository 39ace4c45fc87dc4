import { describe, expect, it } from 'vitest';

import { VIEWS } from '../lib/selection.svelte';
import { CONCEPTS } from './concepts';
import { CHILDREN, elements, fault } from './wellformed';

// Vite reads them from the disk, as they stand in this checkout.
const PACKAGE = '../../../src/etude/';
const PYTHON = import.meta.glob<string>('../../../src/etude/**/*.py', { query: '?raw', import: 'default', eager: true });
const ALL = VIEWS.flatMap((view) => CONCEPTS[view].map((concept) => ({ view, ...concept })));
const PRESENTATION = ['mrow', 'mi', 'mo', 'mn', 'msub', 'msup', 'msubsup', 'mfrac', 'msqrt', 'munder', 'mover', 'munderover', 'mtext', 'mspace', 'mtable', 'mtr', 'mtd'];

/** Whether a Python file has a top-level function or class of that name, or Class.method. */
function has(text: string, name: string): boolean {
  const [first, method, ...more] = name.split('.') as [string, string | undefined, ...string[]];
  const lines = text.split('\n');
  const start = lines.findIndex((line) => new RegExp(`^(def|class) ${first}\\b`).test(line));
  if (start < 0 || more.length) return false;
  if (method === undefined) return true;
  const after = lines.slice(start + 1);
  const end = after.findIndex((line) => /^[^\s)#]/.test(line));
  return lines[start]!.startsWith('class') && after.slice(0, end < 0 ? undefined : end).some((line) => new RegExp(`^    def ${method}\\b`).test(line));
}

describe('the concepts', () => {
  it('are two to five beside every view', () => {
    for (const view of VIEWS) {
      expect(CONCEPTS[view].length, view).toBeGreaterThanOrEqual(2);
      expect(CONCEPTS[view].length, view).toBeLessThanOrEqual(5);
    }
    expect(Object.keys(CONCEPTS).sort()).toEqual([...VIEWS].sort());
  });

  it('have a title of their own', () => {
    expect(new Set(ALL.map((concept) => concept.title)).size).toBe(ALL.length);
  });

  it.each(ALL)('$view: $title says something at every depth', (concept) => {
    for (const key of ['title', 'picture', 'stops', 'words', 'maths', 'symbols'] as const) expect(concept[key].trim(), key).not.toBe('');
    for (const key of ['picture', 'stops', 'words', 'symbols'] as const) {
      expect(concept[key], key).toMatch(/[.?!]\)?$/);
      expect(concept[key], key).not.toMatch(/ {2}|undefined|[<>]/);
    }
    expect(concept.stops.split(/[.?!] /).length, 'sentences').toBeLessThanOrEqual(2);
    expect(concept.code.length).toBeGreaterThan(0);
  });

  it.each(ALL)('$view: the maths of $title is MathML', ({ maths }) => {
    expect(fault(maths)).toBe('');
    expect(maths, 'two words without a gap').not.toMatch(/(?<!<msu[bp](sup)?>)<mi>[a-z]{2,}<\/mi><m(i|sub|text)>/i);
    for (const { name, children } of elements(maths)) {
      expect(PRESENTATION).toContain(name);
      if (name in CHILDREN) expect(children, `${name} of ${maths}`).toHaveLength(CHILDREN[name]!);
    }
  });

  it.each(ALL.flatMap(({ view, title, code }) => code.map((of) => ({ view, title, of: of as string }))))('$of exists', ({ of }) => {
    const [file, name, ...more] = of.split(':') as [string, string, ...string[]];
    expect(more).toEqual([]);
    expect(Object.keys(PYTHON)).toContain(PACKAGE + file);
    expect(has(PYTHON[PACKAGE + file]!, name), of).toBe(true);
  });

  it.each([
    ['language model', /language model/i], ['token', /^token$/i], ['neuron', /^neuron$/i], ['weight', /^weight$/i], ['bias', /^bias$/i],
    ['forward propagation', /forward propagation/i], ['predicted and desired output', /predicted and desired/i], ['loss', /^loss$/i],
    ['error signal', /error signal/i], ['backpropagation', /backpropagation/i], ['weight update', /weight update/i],
    ['training loop', /training loop/i], ['validation', /validation/i], ['n-gram rungs', /rungs/i], ['residual stream and layers', /residual stream/i],
    ['attention', /query, key and value/i], ['activation function', /activation function/i], ['dead neuron', /dead neuron/i],
    ['checkpoint and replay with proof', /checkpoint and replay, with proof/i], ['scale', /^scale$/i], ['emergence', /^emergence$/i],
    ['a cliff or a slope', /cliff/i], ['sampling', /^sampling$/i], ['temperature', /^temperature$/i], ['top-p', /^top-p$/i],
  ])('tell of %s', (_, title) => {
    expect(ALL.filter((concept) => title.test(concept.title))).not.toEqual([]);
  });

  it.each([
    ['Loss', /ln V/], ['Loss', /exp\(loss\)/], ['Backpropagation', /chain rule/i], ['Backpropagation', /tug of war/], ['Weight update', /learning rate/],
    ['Weight update', /clipping/i], ['Weight update', /update rule/], ['Scale', /Parameters.*Data.*Compute/], ['A cliff or a slope?', /cliff .*right-or-wrong may be .*slope in probability/],
    ['Checkpoint and replay, with proof', /every bit/], ['The rungs: models that only count', /n-gram/],
  ])('of %s: %s', (title, wanted) => {
    expect(ALL.find((concept) => concept.title === title)?.words).toMatch(wanted);
  });
});

describe('the checks of this file', () => {
  it('find what is not well-formed', () => {
    for (const wrong of ['<mi>x', '<mi>x</mn>', 'a < b', '<mo>&</mo>', '<mi x>y</mi>', '</mi>', '<mo><</mo>']) expect(fault(wrong), wrong).not.toBe('');
    for (const right of ['', '<mi>x</mi>', '<mo>&lt;</mo>', '<mover accent="true"><mi>x</mi><mo>^</mo></mover>']) expect(fault(right), right).toBe('');
  });

  it('find a name only where it is', () => {
    const text = 'class A:\n    def one(self) -> int:\n        return 1\n\n\ndef two(\n    a: int,\n) -> int:\n    return a\n\n\nclass B:\n    def three(self) -> int:\n        return 3\n';
    for (const name of ['A', 'A.one', 'two', 'B.three']) expect(has(text, name), name).toBe(true);
    for (const name of ['one', 'A.three', 'B.one', 'two.a', 'three', 'C', 'A.one.x', 'tw']) expect(has(text, name), name).toBe(false);
  });
});
