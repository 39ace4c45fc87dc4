/** Explanations beside attention: how one position of a text reads another. */
import type { Concept } from './concept';
import { frac, lines, root, row, said, sub, subsup, sum, sup } from './mathml';

export const ATTENTION: Concept[] = [
  {
    title: 'Query, key and value',
    picture:
      'In a reading room each reader holds up a note with what they are looking for: the query. The back of every book shows ' +
      'what it offers: the key. If note and back agree, the reader takes what is in the book: the value.',
    stops:
      'A reader picks one book. Attention picks all of them at once, in shares that add up to one, and it must take ' +
      'something even if nothing fits.',
    words:
      'At each position three matrices compute three vectors from the stream: query, key and value. The query is compared ' +
      'with the keys of this position and of all earlier ones (the product of the two, divided by the root of their length). ' +
      'Later positions are hidden, or the model could read the answer. Softmax turns the comparisons into shares, and the ' +
      'values are mixed by these shares. The mix goes through an output matrix and is added to the stream. The position of a ' +
      'token counts too: most families here turn query and key by an angle that grows with the position.',
    maths: lines(
      row(sub('s', 'tu'), '=', frac(row(sub('q', 't'), '·', sub('k', 'u')), root('d')), ',', 'u', '≤', 't'),
      row(sub('α', 'tu'), '=', frac(sup('e', sub('s', 'tu')), row(sum(row('w', '≤', 't')), sup('e', sub('s', 'tw'))))),
      row(sub('o', 't'), '=', sum('u'), sub('α', 'tu'), sub('v', 'u')),
    ),
    symbols:
      't: the position that reads. u: a position that is read. q, k, v: query, key, value, each of length d. α: the shares, ' +
      'the picture you see. o: the mix.',
    code: ['model/attention.py:Attention.forward', 'diagnose/machine/step_by_definition.py:causal_attention', 'model/layers.py:rotate'],
  },
  {
    title: 'Heads and what they look for',
    picture:
      'Several readers study the same letter: one watches the names, one the grammar, one whether a phrase came before.',
    stops:
      'Nobody assigned these tasks, many heads do a bit of several, and a head with a known habit may still do other things.',
    words:
      'A layer has several attentions side by side, its heads, each with its own queries, keys and values. In a picture, a ' +
      'row is the token that reads and a column the token that is read. A slanting line just beside the edge means that the ' +
      'head looks at the previous token. A bright first column means that it looks at the first token, often because nothing ' +
      'else fits. An induction head finds an earlier position like this one and looks at what came next there; when such ' +
      'heads appear, a model learns to repeat patterns. The entropy measures how widely a head spreads its attention.',
    maths: lines(
      row('induction', '=', said('mean of'), sub('α', row('t', ',', 't', '−', 'P', '+', '1'))),
      row('entropy', '=', '−', sum('u'), sub('α', 'tu'), 'ln', sub('α', 'tu')),
    ),
    symbols:
      'α: the shares. P: the length of a random passage that is repeated; t runs over the repetition. Entropy zero: the head ' +
      'looks at one position only.',
    code: ['watch/kinds_of_heads.py:kinds_of_heads', 'watch/prompts.py:induction_scores', 'watch/tapped_forward.py:entropy'],
  },
  {
    title: 'Looking is not using',
    picture:
      'If you see a colleague look out of the window, you do not know what they saw, or whether it changed their mind.',
    stops: 'You could ask a colleague. Here you can do better: remove what was seen, and predict again.',
    words:
      'A large share only means that much of a value was taken. If that value is short, or the output matrix turns it to ' +
      'where nothing reads it, it did nothing for the prediction. Two better questions: how much did each head add, ' +
      'directly, to the logit of the token? And how does the prediction change without a token, or with a head switched off? ' +
      'Even these may mislead, because other parts can take over.',
    maths: lines(
      row(sub('logit', 'v'), '=', sum('parts'), sub('c', 'part')),
      row(sub('c', 'head'), '=', subsup('W', 'v', 'T'), 'n', '(', sub('W', 'o'), 'o', ')'),
    ),
    symbols:
      'c: what a part adds to the logit of token v. W o: output matrix of the head. W v: the row of the output matrix for ' +
      'the token. n: the last norm, with its scale held fixed.',
    code: ['watch/contributions.py:contributions', 'watch/attribution.py:attribution', 'watch/knobs.py:compare'],
  },
];
