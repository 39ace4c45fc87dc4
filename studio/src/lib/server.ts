/** The server, as functions. A refusal becomes an Error whose message says what to do. */

import type { Ability, Answer, Failure, Progress, Question, Rows, RunFacts, RunLine, Source, TokenLine, Verdict } from './contract';

/** When the server was given a token (a page for another machine), it stands in the address and goes with each request. */
const token = typeof location === 'undefined' ? null : new URLSearchParams(location.search).get('token');

function headers(more: Record<string, string> = {}): Record<string, string> {
  return token === null ? more : { ...more, Authorization: `Bearer ${token}` };
}

export class Gone extends Error {}

/** There is no such run, or no longer. */
export class Missing extends Error {}

async function get(path: string, more: Record<string, string> = {}, signal?: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { headers: headers(more), signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Gone('the server does not answer');
  }
  if (response.status === 404) throw new Missing(await reason(response));
  if (!response.ok) throw new Error(await reason(response));
  return response;
}

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

export const verdicts = async (run: string): Promise<Verdict[]> =>
  (await get(`./api/runs/${encodeURIComponent(run)}/doctor`)).json();

export const source = async (of: string): Promise<Source> => (await get(`./api/source?of=${encodeURIComponent(of)}`)).json();

export type Action = 'pause' | 'go_on' | 'one_step' | 'save' | 'stop';

export async function control(run: string, action: Action): Promise<void> {
  const response = await fetch(`./api/runs/${encodeURIComponent(run)}/control`, {
    method: 'POST',
    headers: headers({ 'Content-Type': 'application/json' }),
    body: JSON.stringify({ action }),
  });
  if (!response.ok) throw new Error(await reason(response));
}

export interface Heard {
  progress?: (progress: Progress['progress']) => void;
  token?: (token: TokenLine['token']) => void;
}

/** Ask the worker; `heard` is told what comes before the answer. Aborting tells the server to let it be. */
export async function ask<T>(question: Question, heard: Heard = {}, signal?: AbortSignal): Promise<T> {
  let response: Response;
  try {
    response = await fetch('./api/ask', {
      method: 'POST',
      headers: headers({ 'Content-Type': 'application/json' }),
      body: JSON.stringify(question),
      signal,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Gone('the server does not answer');
  }
  if (!response.ok || response.body === null) throw new Error(await reason(response));
  for await (const line of lines(response.body)) {
    const said = JSON.parse(line) as Partial<Progress & TokenLine & Failure & Answer<T>>;
    if (said.progress) heard.progress?.(said.progress);
    else if (said.token) heard.token?.(said.token);
    else if (said.error !== undefined) throw new Error(said.error);
    else if (said.answer !== undefined) return said.answer;
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
  if (response.status !== 206) throw new Error(`a part of the tensors was asked for, and ${response.status} came`);
  return response.arrayBuffer();
}
