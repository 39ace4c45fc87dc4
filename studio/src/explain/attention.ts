/** Beside attention: how one place of a text reads another. */
import type { Concept } from './concept';
import { frac, lines, root, row, said, sub, subsup, sum, sup } from './mathml';

export const ATTENTION: Concept[] = [
  {
    title: 'Query, key and value',
    picture:
      'A reading room. Each reader holds up a note with what they are looking for: the query. On the back of every book ' +
      'stands what it has to offer: the key. Where note and back agree, the reader takes from the book what is in it: the value.',
    stops:
      'A reader picks one book. Attention picks all of them at once, in shares that add up to one, and it must take from something even if nothing fits.',
    words:
      'At each place three vectors are made from the stream, by three matrices: query, key and value. The query is compared with ' +
      'the keys of this place and of all before it (a product of the two, divided by the root of their length). What stands ' +
      'later is hidden, or the model could read the answer. Softmax turns the comparisons into shares, and the values are ' +
      'mixed by these shares. The mix goes through an output matrix and is added to the stream. Where a token stands enters ' +
      'too: in most families here by turning query and key by an angle that grows with the place.',
    maths: lines(
      row(sub('s', 'tu'), '=', frac(row(sub('q', 't'), '·', sub('k', 'u')), root('d')), ',', 'u', '≤', 't'),
      row(sub('α', 'tu'), '=', frac(sup('e', sub('s', 'tu')), row(sum(row('w', '≤', 't')), sup('e', sub('s', 'tw'))))),
      row(sub('o', 't'), '=', sum('u'), sub('α', 'tu'), sub('v', 'u')),
    ),
    symbols: 't: the place that reads. u: a place that is read. q, k, v: query, key, value, each of length d. α: the shares, the picture you see. o: the mix.',
    code: ['model/attention.py:Attention.forward', 'diagnose/machine/step_by_definition.py:causal_attention', 'model/layers.py:rotate'],
  },
  {
    title: 'Heads and what they look for',
    picture: 'Several people read the same letter: one watches who is named, one the grammar, one whether a phrase came before.',
    stops: 'Nobody assigned these tasks, many heads do a bit of several, and a head whose habit has a name may still do other things.',
    words:
      'A layer has several attentions side by side, its heads, each with its own queries, keys and values. In a picture, a ' +
      'row is the token that reads, a column the token that is read. A slanting line just beside the edge: the head looks at ' +
      'the token before. A bright first column: it looks at the first token, often because it has nothing to look for. An ' +
      'induction head finds an earlier place like this one and looks at what came next there; when such heads appear, a model ' +
      'learns to repeat patterns. The entropy says how widely a head spreads its look.',
    maths: lines(
      row('induction', '=', said('mean of'), sub('α', row('t', ',', 't', '−', 'P', '+', '1'))),
      row('entropy', '=', '−', sum('u'), sub('α', 'tu'), 'ln', sub('α', 'tu')),
    ),
    symbols: 'α: the shares. P: after so many tokens the same random passage comes again; t goes over the second time. Entropy zero: it looks at one place only.',
    code: ['watch/kinds_of_heads.py:kinds_of_heads', 'watch/prompts.py:induction_scores', 'watch/forward.py:entropy'],
  },
  {
    title: 'Looking is not using',
    picture: 'To see somebody look out of the window does not tell you what they saw, or whether it changed their mind.',
    stops: 'With a person you could ask. Here you can do better: take away what was seen, and predict again.',
    words:
      'A large share only says that much of a value was taken. If that value is short, or the output matrix turns it where nobody ' +
      'reads, it did nothing for the prediction. Two better questions: what did each head add, directly, to the logit of the ' +
      'token? And how does the prediction move when a token is left out, or a head is switched off? Even these may mislead, ' +
      'since other parts can stand in.',
    maths: lines(
      row(sub('logit', 'v'), '=', sum('parts'), sub('c', 'part')),
      row(sub('c', 'head'), '=', subsup('W', 'v', 'T'), 'n', '(', sub('W', 'o'), 'o', ')'),
    ),
    symbols: 'c: what a part adds to the logit of token v. W o: output matrix of the head. W v: the row of the output matrix for the token. n: the last norm, its scale held fixed.',
    code: ['watch/contributions.py:contributions', 'watch/attribution.py:attribution', 'watch/knobs.py:compare'],
  },
];
