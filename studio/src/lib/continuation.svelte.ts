/** Continuations of a text at one step: several ways, of which one is shown. */

import { instead, written, type Written } from './branches';
import type { Busy, ChatAnswer, Progress } from './generated';
import { ask } from './server';

export interface Sampling {
  temperature: number;
  top_p: number;
  seed: number;
  count: number;
}
export type Status = 'writing' | 'done' | 'stopped' | 'refused';

export class Way {
  tokens = $state.raw<Written[]>([]);
  status = $state<Status>('writing');
  error = $state('');
  answer = $state.raw<ChatAnswer | null>(null);
  progress = $state.raw<Progress['progress'] | null>(null);
  machine = $state.raw<Busy['busy'] | null>(null);

  constructor(
    readonly run: string,
    readonly text: string,
    readonly step: number | null,
    readonly sampling: Sampling,
    readonly taken: readonly Written[],
  ) {
    this.tokens = [...taken];
  }
}

export class Continuations {
  ways = $state.raw<Way[]>([]);
  shown = $state(0);
  chosen = $state(-1); // token of the shown way
  private stopping: AbortController | null = null;

  get way(): Way | null {
    return this.ways[this.shown] ?? null;
  }
  get writing(): boolean {
    return this.ways.some((way) => way.status === 'writing');
  }

  /** A first way; what was there is forgotten. */
  begin(run: string, text: string, step: number | null, sampling: Sampling): Promise<void> {
    this.clear();
    return this.write(new Way(run, text, step, sampling, []));
  }

  /** Another way from a place of the shown one, with another token there. */
  branch(position: number, id: number, sampling: Sampling): Promise<void> {
    const from = this.way;
    if (!from) return Promise.resolve();
    this.stop();
    return this.write(new Way(from.run, from.text, from.step, sampling, instead(from.tokens, position, id)));
  }

  show(place: number): void {
    this.shown = place;
    this.chosen = -1;
  }

  stop(): void {
    this.stopping?.abort();
    this.stopping = null;
  }

  clear(): void {
    this.stop();
    this.ways = [];
    this.show(0);
  }

  private async write(way: Way): Promise<void> {
    const stop = (this.stopping = new AbortController());
    this.ways = [...this.ways, way];
    this.show(this.ways.length - 1);
    const { temperature, top_p, seed, count } = way.sampling;
    try {
      way.answer = await ask(
        {
          run: way.run, look: 'chat', text: way.text, temperature, top_p, seed, count,
          ...(way.step === null ? {} : { step: way.step }),
          ...(way.taken.length ? { taken: way.taken.map((token) => token.id) } : {}),
        },
        {
          progress: (progress) => (way.progress = progress),
          busy: (busy) => (way.machine = busy),
          token: (token) => (way.tokens = [...way.tokens, written(token)]),
        },
        stop.signal,
      );
      way.status = 'done';
    } catch (error) {
      way.status = stop.signal.aborted ? 'stopped' : 'refused';
      if (!stop.signal.aborted) way.error = error instanceof Error ? error.message : String(error);
    } finally {
      if (this.stopping === stop) this.stopping = null;
    }
  }
}

/** They outlive the view, so that they are there when the reader comes back. Those of another run are dropped. */
class Chats {
  run = '';
  readonly columns = [new Continuations(), new Continuations()] as const;

  of(run: string): void {
    if (run === this.run) return;
    this.run = run;
    for (const column of this.columns) column.clear();
  }
}

export const chats = new Chats();
