import { afterEach, describe, expect, it, vi } from 'vitest';

import { Continuations } from './continuation.svelte';

const SAMPLING = { temperature: 0.8, top_p: 0.95, seed: 0, count: 2 };
const line = (id: number) => ({ token: { id, text: ` t${id}`, probability: 0.5, others: [{ id: 9, text: ' t9', probability: 0.3 }] } });
const questions: { taken?: number[]; step?: number }[] = [];

function server(lines: object[]): void {
  vi.stubGlobal('fetch', (_path: string, { body }: RequestInit) => {
    questions.push(JSON.parse(body as string));
    return Promise.resolve(new Response(lines.map((one) => JSON.stringify(one)).join('\n')));
  });
}
afterEach(() => {
  questions.length = 0;
  vi.unstubAllGlobals();
});

describe('continuations', () => {
  it('are written token by token, and go another way with the tokens so far', async () => {
    server([line(1), line(2), { answer: { text: ' t1 t2', finish: 'length', where: '' } }]);
    const column = new Continuations();
    await column.begin('run', 'Once', null, SAMPLING);
    expect(column.way?.tokens.map((token) => token.id)).toEqual([1, 2]);
    expect(column.way?.status).toBe('done');
    expect(questions[0]).not.toHaveProperty('step');
    await column.branch(1, 9, SAMPLING);
    expect(questions[1]!.taken).toEqual([1, 9]);
    expect(column.way?.tokens.map((token) => token.id)).toEqual([1, 9, 1, 2]);
    expect([column.ways.length, column.shown]).toEqual([2, 1]);
  });
  it('keep what was written when the server refuses', async () => {
    server([line(1), { error: 'use an earlier checkpoint' }]);
    const column = new Continuations();
    await column.begin('run', 'Once', 40, SAMPLING);
    expect(questions[0]!.step).toBe(40);
    expect([column.way?.status, column.way?.error, column.way?.tokens.length]).toEqual(['refused', 'use an earlier checkpoint', 1]);
  });
});
