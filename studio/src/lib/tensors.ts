/** Tensors of a file in the safetensors format, read in parts: the header first, then only what is drawn. */

import { part } from './server';

export interface Tensor {
  data: Float32Array;
  shape: number[];
}
interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

export class Tensors {
  private constructor(
    readonly key: string,
    private readonly start: number,
    private readonly header: Record<string, Entry>,
  ) {}

  static async open(key: string, signal?: AbortSignal): Promise<Tensors> {
    const length = Number(new DataView(await part(key, 0, 8, signal)).getBigUint64(0, true));
    if (length > 10_000_000) throw new Error('the header of the tensors is damaged');
    const text = new TextDecoder().decode(await part(key, 8, 8 + length, signal));
    return new Tensors(key, 8 + length, JSON.parse(text) as Record<string, Entry>);
  }

  has(name: string): boolean {
    return name in this.header && name !== '__metadata__';
  }

  async read(name: string, signal?: AbortSignal): Promise<Tensor> {
    const entry = this.header[name];
    if (!entry || name === '__metadata__') throw new Error(`there is no tensor ${name}`);
    if (entry.dtype !== 'F32') throw new Error(`${name} is ${entry.dtype}, not F32`);
    const [from, to] = entry.data_offsets;
    if (from === to) return { data: new Float32Array(0), shape: entry.shape };
    const bytes = await part(this.key, this.start + from, this.start + to, signal);
    return { data: new Float32Array(bytes), shape: entry.shape };
  }
}
