/** The server, as functions. A refusal becomes an Error whose message says what to do. */

import type { Ability, Answers, Busy, ConversationLine, Failure, Look, Progress, Question, Rows, RunFacts, RunLine, Source, TokenLine, TuningStep, Verdict } from './generated';
import { withIds } from './tokens';

export class Gone extends Error {}

/** There is no such run, or no longer. */
export class Missing extends Error {}

/** The browser has no cookie that this server accepts: its address, with the token, has to be opened. */
export class Locked extends Error {}

async function send(path: string, init: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Gone('the server does not answer');
  }
  if (response.status === 401) throw new Locked(await reason(response));
  if (response.status === 404) throw new Missing(await reason(response));
  if (!response.ok) throw new Error(await reason(response));
  return response;
}

const get = (path: string, headers: Record<string, string> = {}, signal?: AbortSignal): Promise<Response> =>
  send(path, { headers, signal });

const post = (path: string, body: unknown, signal?: AbortSignal): Promise<Response> =>
  send(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body), signal });

async function reason(response: Response): Promise<string> {
  try {
    return String(((await response.json()) as Failure).error);
  } catch {
    return `the server answered ${response.status}`;
  }
}

export const runs = async (): Promise<RunLine[]> => (await get('./api/runs')).json();

export const facts = async (run: string): Promise<RunFacts> => (await get(`./api/runs/${encodeURIComponent(run)}`)).json();

export const rows = async (run: string, cursor: string): Promise<Rows> =>
  (await get(`./api/runs/${encodeURIComponent(run)}/rows?from=${cursor}`)).json();

export const abilities = async (run: string): Promise<Ability[]> =>
  (await get(`./api/runs/${encodeURIComponent(run)}/abilities`)).json();

export const tuning = async (run: string): Promise<TuningStep[]> =>
  (await get(`./api/runs/${encodeURIComponent(run)}/tuning`)).json();

export const verdicts = async (run: string): Promise<Verdict[]> =>
  (await post(`./api/runs/${encodeURIComponent(run)}/doctor`, {})).json();

export const source = async (of: string): Promise<Source> => (await get(`./api/source?of=${encodeURIComponent(of)}`)).json();

export type Action = 'pause' | 'go_on' | 'one_step' | 'save' | 'stop';

export async function control(run: string, action: Action): Promise<void> {
  await post(`./api/runs/${encodeURIComponent(run)}/control`, { action });
}

export interface Listeners {
  progress?: (progress: Progress['progress']) => void;
  busy?: (busy: Busy['busy']) => void;
  conversation?: (conversation: ConversationLine['conversation']) => void;
  token?: (token: TokenLine['token']) => void;
}

/** Ask the worker; the listeners get what comes before the answer. Aborting cancels the work on the server. */
export async function ask<L extends Look>(question: Question & { look: L }, listeners: Listeners = {}, signal?: AbortSignal): Promise<Answers[L]> {
  const response = await post('./api/ask', withIds(question), signal);
  if (response.body === null) throw new Gone('the answer broke off');
  for await (const line of lines(response.body)) {
    const message = JSON.parse(line) as Partial<Progress & Busy & ConversationLine & TokenLine & Failure & { answer: Answers[L] }>;
    if (message.progress) listeners.progress?.(message.progress);
    else if (message.busy) listeners.busy?.(message.busy);
    else if (message.conversation) listeners.conversation?.(message.conversation);
    else if (message.token) listeners.token?.(message.token);
    else if (message.error !== undefined) throw new Error(message.error);
    else if (message.answer !== undefined) return message.answer;
  }
  throw new Gone('the answer broke off');
}

async function* lines(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (rest + value).split('\n');
    rest = parts.pop() ?? '';
    for (const part of parts) if (part) yield part;
  }
  if (rest) yield rest;
}

/** Bytes `[from, to)` of a file of tensors. */
export async function part(key: string, from: number, to: number, signal?: AbortSignal): Promise<ArrayBuffer> {
  const response = await get(`./api/tensors/${encodeURIComponent(key)}`, { Range: `bytes=${from}-${to - 1}` }, signal);
  if (response.status !== 206) throw new Error(`the server answered ${response.status} to a request for a part of the tensors`);
  return response.arrayBuffer();
}
