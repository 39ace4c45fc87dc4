/** The facts of a model without a run, as lines. */

import { count } from '../../lib/format';
import type { RunFacts } from '../../lib/generated';

export function factsOf({ model, published }: RunFacts): [string, string][] {
  if (model === null || published === null) return [];
  const heads = model.heads === model.kv_heads ? count(model.heads) : `${count(model.heads)}, which share ${count(model.kv_heads)} keys and values`;
  return [
    ['Parameters', `${count(model.parameters)}${model.tied ? '; the output matrix is the embedding (tied)' : ''}`],
    ['Layers', `${count(model.layers)}, width ${count(model.width)}`],
    ...(model.attention ? ([['Heads per layer', heads]] as [string, string][]) : []),
    ['Vocabulary', `${count(model.vocabulary)} tokens`],
    ['Longest text', `${count(model.context)} tokens`],
    ['Origin', published.source || 'not recorded'],
    ['Licence', published.licence ?? 'not stated'],
    ['Weights', published.rounding === null ? 'as published' : `rounded when the file was made (${published.rounding})`],
    ['Chat template', published.chat_template ? 'yes' : 'none'],
  ];
}
