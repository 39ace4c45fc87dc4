/**
 * Formulas as MathML, in a way that can be read in the source: row('z', '=', sub('w', 'i'), sub('x', 'i')).
 * A part that begins with '<m' is markup already; of other text letters become names, digits numbers, the rest signs.
 */

const GAP = '<mspace width="0.2em"/>'; // after a function that needs no brackets

export function atom(part: string): string {
  if (part.startsWith('<m')) return part;
  if (part === 'ln') return `<mrow><mi>ln</mi>${GAP}</mrow>`;
  const text = part.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
  if (/^[\p{L}]+$/u.test(part)) return `<mi>${text}</mi>`;
  if (/^[\d.]+$/.test(part)) return `<mn>${text}</mn>`;
  return `<mo>${text}</mo>`;
}

export const row = (...parts: string[]): string => `<mrow>${parts.map(atom).join('')}</mrow>`;
/** Two small letters are two numbers of a place: w with j and i. */
const place = (below: string): string => (/^[a-z]{2}$/.test(below) ? row(...below) : atom(below));
export const sub = (base: string, below: string): string => `<msub>${atom(base)}${place(below)}</msub>`;
export const sup = (base: string, above: string): string => `<msup>${atom(base)}${atom(above)}</msup>`;
export const subsup = (base: string, below: string, above: string): string =>
  `<msubsup>${atom(base)}${place(below)}${atom(above)}</msubsup>`;
export const frac = (over: string, under: string): string => `<mfrac>${atom(over)}${atom(under)}</mfrac>`;
export const root = (of: string): string => `<msqrt>${atom(of)}</msqrt>`;
export const hat = (of: string): string => `<mover accent="true">${atom(of)}<mo>^</mo></mover>`;
export const sum = (over: string): string => `<munder><mo>∑</mo>${atom(over)}</munder>`;
export const product = (over: string): string => `<munder><mo>∏</mo>${atom(over)}</munder>`;
/** Words, with the blanks between them and one after them. */
export const said = (text: string): string => `<mrow><mtext>${text.replace(/ /g, '\u00a0')}</mtext>${GAP}</mrow>`;
/** How much the first moves when the second does. */
export const slope = (of: string, by: string): string => frac(row('∂', of), row('∂', by));
/** One formula below the other, so that none is wider than the panel. */
export const lines = (...rows: string[]): string =>
  `<mtable>${rows.map((each) => `<mtr><mtd>${each}</mtd></mtr>`).join('')}</mtable>`;
