/** The runs there are, and the one that is looked at: what it is, and its record as it grows. */

import { tick } from 'svelte';

import { forgetAnswers } from './answer.svelte';
import type { HistoryFacts, RunFacts, RunLine } from './generated';
import { Record_ } from './record.svelte';
import { opensStep, selection } from './selection.svelte';
import * as server from './server';

/**
 * Milliseconds between two looks at the run while the page is seen. A training on the same processors pays for each look
 * and each drawing, so the page rests 800 times as long as it took to read and draw, within bounds: where drawing is
 * cheap it looks often.
 */
const REST = { least: 3000, most: 10_000, times: 800 };
const POLLS_A_LIST = 5; // runs begin and end seldom: the list of them is read at every fifth look

class Studio {
  runs = $state.raw<RunLine[] | null>(null);
  facts = $state.raw<RunFacts | null>(null);
  record = $state.raw(new Record_());
  /** Counts what has been read: an $effect that reads it runs again when there is more. */
  version = $state(0);
  loading = $state(true);
  trouble = $state(''); // one line, when something cannot be read
  serverGone = $state(false);
  locked = $state(false); // the printed address was not opened in this browser, or it is of an earlier start
  others = $state.raw<Map<string, Record_>>(new Map()); // of the runs that are compared

  private shown = '';
  private busy = false;
  private polls = 0;
  private more = false; // than what is drawn
  private again = false; // another look was requested during this one
  private begun = false;

  begin(): void {
    if (this.begun) return;
    this.begun = true;
    document.addEventListener('visibilitychange', () => void this.poll());
    void this.look();
  }

  /** Read what is new, rest, and so on. */
  private async look(): Promise<void> {
    const took = await this.poll();
    setTimeout(() => void this.look(), Math.min(REST.most, Math.max(REST.least, REST.times * took)));
  }

  /** Read what is new, now, and draw it; gives the milliseconds that drawing took. */
  async poll(): Promise<number> {
    if (document.hidden) return 0;
    if (this.busy) {
      this.again = true;
      return 0;
    }
    this.busy = true;
    this.more = false;
    try {
      const runs = await this.list();
      this.serverGone = false;
      const name = selection.now.run || runs[0]?.name || '';
      if (name && !selection.now.run) selection.set({ run: name }, false); // a copied address shows the same run
      if (name) await this.follow(name);
      else this.loading = false;
      this.trouble = '';
      this.locked = false;
    } catch (error) {
      this.serverGone = error instanceof server.Gone;
      this.locked = error instanceof server.Locked;
      if (error instanceof server.Missing || this.locked) this.forget(); // do not show its data any longer
      if (this.locked) this.runs = null;
      this.trouble = this.locked ? '' : error instanceof Error ? error.message : String(error);
      this.loading = false;
    } finally {
      this.busy = false;
    }
    const took = this.more ? await this.draw() : 0;
    if (!this.again) return took;
    this.again = false;
    return took + (await this.poll());
  }

  private async draw(): Promise<number> {
    const begun = performance.now();
    this.version++;
    await tick();
    await Promise.resolve(); // a chart draws in the microtask after its data changes
    return performance.now() - begun;
  }

  /** The runs there are. */
  private async list(): Promise<RunLine[]> {
    if (this.runs === null || this.runs.length === 0 || this.polls % POLLS_A_LIST === 0) this.runs = await server.runs();
    this.polls++;
    return this.runs;
  }

  private async follow(name: string): Promise<void> {
    if (name !== this.shown) {
      this.forget();
      this.shown = name;
      this.loading = true;
    }
    this.facts = await server.facts(name);
    await this.read(name, this.record);
    this.loading = false;
    for (const other of selection.now.compare) {
      const known = this.others.get(other) ?? new Record_();
      if (!this.others.has(other)) this.others = new Map(this.others).set(other, known);
      try {
        await this.read(other, known);
      } catch (error) {
        if (error instanceof server.Gone) throw error; // a run that is gone must not keep the others from being read
      }
    }
  }

  private forget(): void {
    this.shown = '';
    this.facts = null;
    this.record = new Record_();
    this.polls = 0; // and the list is read again
    this.version++;
  }

  private async read(name: string, record: Record_): Promise<void> {
    for (;;) {
      const rows = await server.rows(name, record.cursor);
      if (rows.reset) forgetAnswers();
      if (record.take(rows)) this.more = true;
      if (!rows.more) return;
    }
  }

  /** Names of the network's weights and biases, as far as the record has them. */
  get parameters(): string[] {
    void this.version;
    return Object.keys(this.record.summaries.at(-1)?.tensors ?? {});
  }

  /** A model without a run: it has weights, and no record of its training. */
  get bare(): boolean {
    return this.facts?.published != null;
  }

  /** Of a model without a run: what is known of its saved versions, if there are several. */
  get history(): HistoryFacts | null {
    return this.facts?.history ?? null;
  }

  get run(): string {
    return this.facts?.name ?? selection.now.run;
  }

  /**
   * The step that is looked at: the chosen one, else the newest that is at hand. For a view of the network that is the newest
   * checkpoint, for one that opens a step the one behind a checkpoint. To make every newest step of a run that trains again
   * would never come to an end.
   */
  get step(): number {
    const facts = this.facts;
    if (selection.now.step !== null || facts === null) return selection.now.step ?? 0;
    const opens = opensStep(selection.now.view);
    const saved = facts.checkpoints.findLast((step) => !opens || step < facts.last_step);
    return saved === undefined ? facts.last_step : opens ? saved + 1 : saved;
  }

  /** The same for what needs a whole state: a checkpoint can be looked at too. */
  get canOpen(): boolean {
    const facts = this.facts;
    return facts !== null && this.step >= facts.first_step && this.step <= facts.last_step;
  }
}

export const studio = new Studio();
