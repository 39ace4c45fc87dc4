/** Says what is wrong with markup whose tags have to match, or nothing. Enough for the MathML that is made here. */
export function fault(markup: string): string {
  const open: string[] = [];
  let at = 0;
  while (at < markup.length) {
    const tag = markup.indexOf('<', at);
    const text = markup.slice(at, tag < 0 ? undefined : tag);
    if (/[<>]|&(?!(?:amp|lt|gt|#\d+);)/.test(text)) return `a sign that has to be written as an entity in “${text}”`;
    if (tag < 0) break;
    const found = /^<(\/?)([a-z]+)((?:\s[a-z]+="[^"<&]*")*)\s*(\/?)>/.exec(markup.slice(tag));
    if (!found) return `no tag at “${markup.slice(tag, tag + 20)}”`;
    const [whole, closing, name, attributes, alone] = found as unknown as [string, string, string, string, string];
    if (closing) {
      if (attributes || alone) return `a closing tag with more than a name: ${whole}`;
      const last = open.pop();
      if (last !== name) return `</${name}> closes <${last ?? 'nothing'}>`;
    } else if (!alone) open.push(name);
    at = tag + whole.length;
  }
  return open.length ? `<${open.join('>, <')}> left open` : '';
}

/** How many children an element of MathML must have; a row may have any number. */
export const CHILDREN: Record<string, number> = { mfrac: 2, msub: 2, msup: 2, msubsup: 3, munder: 2, mover: 2, munderover: 3 };

/** Every element with its children, outermost last; of markup that has no fault. */
export function elements(markup: string): { name: string; children: string[] }[] {
  const done: { name: string; children: string[] }[] = [];
  const open: { name: string; children: string[] }[] = [{ name: '', children: [] }];
  for (const [, closing, name, alone] of markup.matchAll(/<(\/?)([a-z]+)[^>]*?(\/?)>/g)) {
    if (closing) done.push(open.pop()!);
    else {
      open[open.length - 1]!.children.push(name!);
      if (!alone) open.push({ name: name!, children: [] });
    }
  }
  return done;
}
