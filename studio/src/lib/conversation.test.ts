import { expect, test } from 'vitest';

import { messages, Reply, type Exchange } from './conversation.svelte';
import type { Written } from './branches';

const SAMPLING = { temperature: 1, top_p: 1, seed: 0, count: 5 };
const token = (id: number, text: string): Written => ({ id, text, probability: 1, odds: [], taken: false });

function reply(status: Reply['status'], ...words: string[]): Reply {
  const made = new Reply(null, SAMPLING, 0);
  made.status = status;
  made.tokens = words.map((word, i) => token(i, word));
  return made;
}

test('a conversation is its system prompt and its turns', () => {
  const exchanges: Exchange[] = [{ question: 'a', replies: [reply('done', 'b', 'c')] }];
  expect(messages('  ', exchanges, 0)).toEqual([{ role: 'user', content: 'a' }, { role: 'assistant', content: 'bc' }]);
  expect(messages('Be brief.', [], 0)).toEqual([{ role: 'system', content: 'Be brief.' }]);
});

test('each column reads its own answers, and the first ones where it has none', () => {
  const exchanges: Exchange[] = [
    { question: 'a', replies: [reply('done', 'first')] },
    { question: 'b', replies: [reply('done', 'left'), reply('done', 'right')] },
  ];
  const said = (column: number) => messages('', exchanges, column).filter((one) => one.role === 'assistant').map((one) => one.content);
  expect(said(0)).toEqual(['first', 'left']);
  expect(said(1)).toEqual(['first', 'right']);
});

test('a refused question, or one stopped before its first token, is not a part of it', () => {
  const exchanges: Exchange[] = [
    { question: 'too long', replies: [reply('refused')] },
    { question: 'stopped', replies: [reply('stopped')] },
    { question: 'ended at once', replies: [reply('done')] },
    { question: 'stopped late', replies: [reply('stopped', 'half')] },
  ];
  expect(messages('', exchanges, 0).map((one) => one.content)).toEqual(['ended at once', '', 'stopped late', 'half']);
});

test('the tokens up to a place are those of the conversation and of the answer', () => {
  const made = reply('done', 'a', 'b', 'c');
  made.read = { ids: [1, 7, 2], dropped: 0 };
  expect(made.idsUntil(1)).toEqual([1, 7, 2, 0, 1]);
  expect(made.idsUntil(-1)).toEqual([1, 7, 2]);
});

test('the text of an answer is the one that the server gives', () => {
  const made = reply('writing', 'a', '\ufffd', '\ufffd');
  expect(made.text).toBe('a\ufffd\ufffd');
  made.answer = { text: 'aé', finish: 'eos', where: '' };
  expect(made.text).toBe('aé');
});
