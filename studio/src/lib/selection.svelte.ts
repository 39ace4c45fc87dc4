/** The selection: run, view, step, token and so on. The address holds it, so that a link shows the same to a colleague. */

export const VIEWS = ['live', 'step', 'predictions', 'layers', 'neurons', 'attention', 'growth', 'chat'] as const;
export type View = (typeof VIEWS)[number];
/** They open a step; the others show the network, or the run. */
export const opensStep = (view: View): boolean => view === 'step' || view === 'layers';

const NUMBERS = { step: 's', row: 'r', token: 'p', layer: 'l', unit: 'n', input: 'i', head: 'h', beside: 'b', scene: 'z' } as const;
const TEXTS = { tensor: 't', picture: 'of', picked: 'at', draw: 'draw', text: 'text' } as const;
type NumberKey = keyof typeof NUMBERS;
type TextKey = keyof typeof TEXTS;

export interface Selected {
  view: View;
  run: string;
  step: number | null; // null: the newest
  row: number;
  token: number;
  layer: number;
  unit: number;
  input: number;
  head: number;
  beside: number | null; // the step of the second continuation
  scene: number; // of the One step view
  tensor: string; // of the Layers view
  picture: string; // which picture of it; empty: its weights
  picked: string; // one of its numbers: its index, such as 3,17
  draw: string; // how Chat drew: temperature, top-p, seed and number of tokens; empty: not yet
  text: string; // a passage of one's own, or the tokens of a conversation (tokens.ts)
  knobs: string[]; // what is turned
  compare: string[]; // other runs on the same axes
}

const NOTHING: Selected = {
  view: 'live', run: '', step: null, row: 0, token: 0, layer: 0, unit: 0, input: 0, head: 0, beside: null, scene: 0, tensor: '', picture: '',
  picked: '', draw: '', text: '',
  knobs: [], compare: [],
};

export function parse(hash: string): Selected {
  const [path = '', ...rest] = hash.replace(/^#\/?/, '').split('?');
  const query = rest.join('?'); // a typed text may hold more of them
  const found: Selected = { ...NOTHING, knobs: [], compare: [] };
  if ((VIEWS as readonly string[]).includes(path)) found.view = path as View;
  const given = new URLSearchParams(query);
  for (const [key, short] of Object.entries(NUMBERS) as [NumberKey, string][]) {
    const value = given.get(short);
    if (value !== null && /^\d{1,12}$/.test(value)) found[key] = Number(value);
  }
  found.run = given.get('run') ?? '';
  for (const [key, short] of Object.entries(TEXTS) as [TextKey, string][]) found[key] = given.get(short) ?? '';
  found.knobs = given.getAll('knob');
  found.compare = given.getAll('with');
  return found;
}

export function address(selected: Selected): string {
  const query = new URLSearchParams();
  if (selected.run) query.set('run', selected.run);
  for (const [key, short] of Object.entries(NUMBERS) as [NumberKey, string][]) {
    const value = selected[key];
    if (value !== null && value !== NOTHING[key]) query.set(short, String(value));
  }
  for (const [key, short] of Object.entries(TEXTS) as [TextKey, string][]) if (selected[key]) query.set(short, selected[key]);
  for (const knob of selected.knobs) query.append('knob', knob);
  for (const name of selected.compare) query.append('with', name);
  const text = query.toString();
  return `#/${selected.view}${text ? `?${text}` : ''}`;
}

class Selection {
  now = $state<Selected>(parse(typeof location === 'undefined' ? '' : location.hash));

  constructor() {
    if (typeof window !== 'undefined') window.addEventListener('hashchange', () => (this.now = parse(location.hash)));
  }

  /** Choose something; `remember` makes a new entry for the back button, as a change of the view does. */
  set(changes: Partial<Selected>, remember = 'view' in changes || 'run' in changes): void {
    this.now = { ...this.now, ...changes };
    const there = address(this.now);
    if (there !== location.hash) history[remember ? 'pushState' : 'replaceState'](null, '', there);
  }

  /** The address of the same with something else chosen, for links. */
  link(changes: Partial<Selected>): string {
    return address({ ...this.now, ...changes });
  }
}

export const selection = new Selection();
