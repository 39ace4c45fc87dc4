/** A conversation with a model: questions, and for each an answer, or two from two steps beside each other. */

import { written, type Written } from './branches';
import type { Sampling, Status } from './continuation.svelte';
import type { Busy, ChatAnswer, ChatMessage, ConversationTokens, Progress } from './generated';
import { ask } from './server';

/** An answer while it is written. */
export class Reply {
  tokens = $state.raw<Written[]>([]);
  status = $state<Status>('writing');
  error = $state('');
  answer = $state.raw<ChatAnswer | null>(null);
  progress = $state.raw<Progress['progress'] | null>(null);
  machine = $state.raw<Busy['busy'] | null>(null);
  /** What the model read before it. */
  read = $state.raw<ConversationTokens | null>(null);

  constructor(
    readonly step: number | null, // null: the newest
    readonly sampling: Sampling,
    readonly retries: number,
  ) {}

  get text(): string {
    return this.answer?.text ?? this.tokens.map((token) => token.text).join('');
  }
  /** Whether it is a part of the conversation: one that was refused, or stopped before its first token, is not. */
  get counts(): boolean {
    return this.status === 'done' || (this.status !== 'refused' && this.tokens.length > 0);
  }

  /** The tokens of the conversation up to the one at a place of this answer. */
  idsUntil(place: number): number[] {
    return [...(this.read?.ids ?? []), ...this.tokens.slice(0, place + 1).map((token) => token.id)];
  }
}

export interface Exchange {
  question: string;
  replies: [Reply] | [Reply, Reply];
}

/** The messages before the next question, as the model of a column has heard and answered them. */
export function messages(system: string, exchanges: readonly Exchange[], column: number): ChatMessage[] {
  const said: ChatMessage[] = system.trim() ? [{ role: 'system', content: system }] : [];
  for (const { question, replies } of exchanges) {
    const reply = replies[column] ?? replies[0];
    if (reply.counts) said.push({ role: 'user', content: question }, { role: 'assistant', content: reply.text });
  }
  return said;
}

export class Conversation {
  run = '';
  system = $state('');
  draft = $state('');
  sampling = $state<Sampling>({ temperature: 0, top_p: 0.95, seed: 0, count: 256 });
  exchanges = $state.raw<Exchange[]>([]);
  private stopping: AbortController | null = null;

  get writing(): boolean {
    return this.exchanges.at(-1)?.replies.some((reply) => reply.status === 'writing') ?? false;
  }

  /** What was said to another model is forgotten. */
  of(run: string): void {
    if (run === this.run) return;
    this.run = run;
    this.clear();
  }

  clear(): void {
    this.stop();
    this.exchanges = [];
    this.draft = '';
  }

  /** Ask the model at each of the steps, one or two. */
  ask(question: string, steps: readonly (number | null)[]): Promise<void> {
    return this.begin(this.exchanges, question, steps, 0);
  }

  /** Replace the last answer by another. */
  retry(steps: readonly (number | null)[]): Promise<void> {
    const last = this.exchanges.at(-1);
    if (!last) return Promise.resolve();
    this.stop();
    return this.begin(this.exchanges.slice(0, -1), last.question, steps, last.replies[0].retries + 1);
  }

  /** Remove the last question with its answer; it can be typed again. */
  undo(): void {
    this.stop();
    this.draft = this.exchanges.at(-1)?.question ?? this.draft;
    this.exchanges = this.exchanges.slice(0, -1);
  }

  stop(): void {
    this.stopping?.abort();
    this.stopping = null;
  }

  private async begin(before: readonly Exchange[], question: string, steps: readonly (number | null)[], retries: number): Promise<void> {
    const stop = (this.stopping = new AbortController());
    const replies = steps.map((step) => new Reply(step, { ...this.sampling }, retries)) as Exchange['replies'];
    this.exchanges = [...before, { question, replies }];
    await Promise.all(
      replies.map((reply, column) => this.write(reply, [...messages(this.system, before, column), { role: 'user', content: question }], stop.signal)),
    );
    if (this.stopping === stop) this.stopping = null;
  }

  private async write(reply: Reply, said: ChatMessage[], signal: AbortSignal): Promise<void> {
    const { temperature, top_p, seed, count } = reply.sampling;
    try {
      reply.answer = await ask(
        {
          run: this.run, look: 'chat', messages: said, temperature, top_p, seed, count, retries: reply.retries,
          ...(reply.step === null ? {} : { step: reply.step }),
        },
        {
          progress: (progress) => (reply.progress = progress),
          busy: (busy) => (reply.machine = busy),
          conversation: (read) => (reply.read = read),
          token: (token) => (reply.tokens = [...reply.tokens, written(token)]),
        },
        signal,
      );
      reply.status = 'done';
    } catch (error) {
      reply.status = signal.aborted ? 'stopped' : 'refused';
      if (!signal.aborted) reply.error = error instanceof Error ? error.message : String(error);
    }
  }
}

/** It outlives the view, so that it is there when the reader comes back. */
export const conversation = new Conversation();
