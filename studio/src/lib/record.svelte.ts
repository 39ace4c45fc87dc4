/** The record of a run: read once, then only its new lines. */

import type { MetricRow, Rows, SampleRow } from './generated';

export class Column {
  steps: number[] = [];
  values: (number | null)[] = [];

  add(step: number, value: number | null | undefined): void {
    this.steps.push(step);
    this.values.push(value ?? null);
  }

  last(): { step: number; value: number } | null {
    for (let i = this.values.length - 1; i >= 0; i--) {
      const value = this.values[i];
      if (typeof value === 'number') return { step: this.steps[i]!, value };
    }
    return null;
  }

  /** The newest value at or before a step. */
  at(step: number): number | null {
    let low = 0, high = this.steps.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.steps[middle]! <= step) low = middle + 1;
      else high = middle;
    }
    return low ? this.values[low - 1]! : null;
  }

  cut(step: number): void {
    let kept = this.steps.length;
    while (kept > 0 && this.steps[kept - 1]! >= step) kept--;
    this.steps.length = this.values.length = kept;
  }
}

export class Record_ {
  loss = new Column();
  val = new Column();
  bits = new Column();
  reference = new Column(); // nats per token on the reference text, of a run from a published model
  referenceBits = new Column(); // the same in bits per byte
  referenceDigest: string | undefined;
  chosen = new Column(); // of held-out pairs: mean log-probability of an answer, nats
  rejected = new Column();
  gained = new Column(); // share of the pairs whose chosen answer gained on the rejected one since step 0
  numPairs = 0;
  right = new Column(); // share of the answers sampled for a step that are right
  ended = new Column(); // share that ended by itself
  lr = new Column();
  gradNorm = new Column();
  speed = new Column();
  seconds = new Column();
  tokens = new Column();
  summaries: MetricRow[] = [];
  events: MetricRow[] = []; // rungs, spikes, skipped steps, ends
  samples: SampleRow[] = [];
  numSteps: number | null = null; // where it was revised
  cursor = '0,0';
  every = 1; // of a long record only every so many-th step is here

  take(rows: Rows): boolean {
    if (rows.reset) this.forget();
    this.cursor = rows.cursor;
    this.every = Math.max(this.every, rows.every);
    for (const row of rows.metrics) this.metric(row);
    for (const sample of rows.samples) {
      while (this.samples.length && this.samples[this.samples.length - 1]!.step > sample.step) this.samples.pop();
      this.samples.push(sample);
    }
    return rows.reset || rows.metrics.length > 0 || rows.samples.length > 0;
  }

  private get ofPairs(): Column[] {
    return [this.chosen, this.rejected, this.gained];
  }

  private forget(): void {
    Object.assign(this, new Record_());
  }

  private metric(row: MetricRow): void {
    switch (row.event) {
      case 'step':
        // A run that resumed from an earlier checkpoint has some steps twice: the later ones count.
        if (this.loss.steps.length && row.step <= this.loss.steps[this.loss.steps.length - 1]!) this.cut(row.step);
        this.loss.add(row.step, row.loss);
        this.lr.add(row.step, row.lr);
        this.gradNorm.add(row.step, row.grad_norm);
        this.speed.add(row.step, row.tokens_per_second);
        this.seconds.add(row.step, row.wall_time);
        this.tokens.add(row.step, row.tokens_seen);
        break;
      case 'eval':
        this.val.cut(row.step);
        this.bits.cut(row.step);
        this.val.add(row.step, row.val_loss);
        this.bits.add(row.step, row.bits_per_byte);
        break;
      case 'reference':
        if (row.digest !== this.referenceDigest) [this.reference, this.referenceBits] = [new Column(), new Column()]; // a fork with another text
        this.referenceDigest = row.digest;
        this.reference.cut(row.step);
        this.referenceBits.cut(row.step);
        this.reference.add(row.step, row.loss);
        this.referenceBits.add(row.step, row.bits_per_byte);
        break;
      case 'preference':
        for (const column of this.ofPairs) column.cut(row.step);
        this.chosen.add(row.step, row.chosen);
        this.rejected.add(row.step, row.rejected);
        this.gained.add(row.step, row.accuracy);
        this.numPairs = row.num_pairs ?? 0;
        break;
      case 'reward':
        for (const column of [this.right, this.ended]) column.cut(row.step);
        this.right.add(row.step, row.right);
        this.ended.add(row.step, row.ended);
        break;
      case 'summary':
        while (this.summaries.length && this.summaries[this.summaries.length - 1]!.step >= row.step) this.summaries.pop();
        this.summaries.push(row);
        break;
      case 'length':
        this.numSteps = row.num_steps ?? this.numSteps;
        break;
      case 'rung':
      case 'spike':
      case 'left_out':
      case 'micro_batch':
      case 'end':
        this.events.push(row);
    }
  }

  private cut(step: number): void {
    for (const column of [this.loss, this.lr, this.gradNorm, this.speed, this.seconds, this.tokens]) column.cut(step);
    for (const column of [this.val, this.bits, this.reference, this.referenceBits, this.right, this.ended, ...this.ofPairs])
      column.cut(step);
    this.events = this.events.filter((event) => event.step < step && event.event !== 'end');
    this.summaries = this.summaries.filter((summary) => summary.step < step);
  }
}
