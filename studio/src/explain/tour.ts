/**
 * The guided tour: the text of each stop, what the reader can do there, and what the page shows. The numbers are those of
 * the run on the page, so the text of a stop is a function of the run.
 */

import type { RunFacts } from '../lib/generated';
import { count, large, number } from '../lib/format';
import type { Selected } from '../lib/selection.svelte';

export interface Stop {
  id: string; // remembered, so that a changed order does not lose the reader's place
  title: string;
  text: (run: RunFacts) => string[]; // paragraphs
  act: string; // what the reader can do after reading the text
  shows: (now: Selected) => Partial<Selected> & { view: Selected['view'] };
  place?: string; // the part of the view that it is about
}

const WORDS_PER_SECOND = 3; // of a reader to whom all of this is new: below the usual 4
const SECONDS_TO_ACT = 15;
const SOME_WAY_IN = 8; // a token with a little text before it

/** The first tokens of a text have nothing before them to predict from. */
const withToken = (now: Selected) => ({ token: now.token > 0 ? now.token : SOME_WAY_IN });

const model = (run: RunFacts) => run.model;
const hasAttention = (run: RunFacts) => run.model?.attention ?? false;

export const STOPS: Stop[] = [
  {
    id: 'language-model',
    title: 'A language model',
    text: (run) => [
      `This is ${run.name}, a language model${run.state === 'running' ? ' that is being trained at this moment' : ''}. It does one thing: it reads some text and predicts, for every token it knows, how likely that token is to come next.`,
      `A token is a piece of text: a word, a part of one, or a single letter.${model(run) ? ` This model knows ${count(model(run)!.vocabulary)} of them.` : ''} A model that predicts how likely a text is, and what may follow, can also write.`,
      'Before neural networks, language models counted: how often did this come after that? This page shows those older models as a ladder.',
    ],
    act: 'Find the newest sample, further down on the page.',
    shows: () => ({ view: 'live' }),
  },
  {
    id: 'predictions',
    title: 'It bets on the next token',
    text: () => [
      'Here is a piece of text that the model never learns from, cut into tokens. At each position the model bets on what comes next, and it knows only the text before.',
      'The stronger the colour of a token, the larger the surprise.',
    ],
    act: 'Click a token, or use the arrow keys, and compare the prediction with what came.',
    shows: (now) => ({ view: 'predictions', ...withToken(now) }),
  },
  {
    id: 'node',
    title: 'A node, or neuron',
    text: (run) => [
      'Between text and bets lies a network of nodes, or neurons. Think of a station on an assembly line: it takes something from each incoming belt and passes one result on. But no one assigned its task: training did.',
      `A neuron multiplies each of its input numbers by a weight, adds the products, and passes the sum through an activation function.${model(run) ? ` This model has ${count(model(run)!.nodes)} neurons in ${model(run)!.layers === 1 ? 'its one layer' : `each of its ${count(model(run)!.layers)} layers`}. Their activation function is ${model(run)!.activation}.` : ''}`,
    ],
    act: 'Choose a neuron and see which pieces of text activate it most.',
    shows: () => ({ view: 'neurons' }),
  },
  {
    id: 'weight',
    title: 'A weight',
    text: (run) => [
      'A weight sets how much one input counts for one neuron. Think of a volume control that can go below zero: then it reverses the effect. Blue is above zero, orange below.',
      `${model(run) ? `Nearly all of this model’s ${count(model(run)!.parameters)} numbers are weights.` : 'Nearly all numbers of a model are weights.'} They began as random numbers, or as zero. Everything that the model knows is in them.`,
    ],
    act: 'Choose a tensor and look at “Since the start”: how training has changed it.',
    shows: () => ({ view: 'layers' }),
  },
  {
    id: 'bias',
    title: 'A bias',
    text: (run) =>
      model(run) && !model(run)!.biases
        ? [
            'Besides its weights a neuron may have a bias: a number that is added to the sum, whatever the inputs are. Think of a thermostat: it sets how large the inputs must be before the neuron activates.',
            'This model was built without biases, as many large models are. It works nearly as well. So this run has no such number to show.',
          ]
        : [
            'Besides its weights a neuron has a bias: a number that is added to the sum, whatever the inputs are. Think of a thermostat: it sets how large the inputs must be before the neuron activates. It starts at zero, and training moves it.',
          ],
    act: 'Here is the sum of one neuron, in a real step of the training. Find the last term before the result.',
    shows: (now) => ({ view: 'step', scene: 0, ...withToken(now) }),
  },
  {
    id: 'forward',
    title: 'Forward: from text to a bet',
    text: (run) => [
      'This is one real step of the training. It begins with reading. Each token becomes a list of numbers, its vector.',
      hasAttention(run)
        ? `The vector goes through ${model(run)!.layers === 1 ? 'one layer' : `${count(model(run)!.layers)} layers`}. Each adds to it: attention brings in information from earlier in the text, then the neurons work on it. This is forward propagation.`
        : 'The vectors of the last few tokens go side by side into the neurons, and from there to the output. This is forward propagation.',
      'The numbers here are not an example. They are the run’s own, replayed and checked: a tick shows that the page computed the same result.',
    ],
    act: 'In the scene “Forward”, follow the neuron’s sum to its activation.',
    shows: (now) => ({ view: 'step', scene: 0, ...withToken(now) }),
  },
  {
    id: 'desired',
    title: 'Predicted and desired',
    text: () => [
      'The forward pass ends in probabilities: the predicted output. The desired output is the token that really came next in the text. The text is its own answer sheet.',
      'Take predicted minus desired, for each token of the vocabulary. The difference is the first error signal: too much here, too little there.',
    ],
    act: 'In the scene “Predicted and desired”, try another token of the row.',
    shows: (now) => ({ view: 'step', scene: 1, ...withToken(now) }),
  },
  {
    id: 'loss',
    title: 'Loss: how wrong, in one number',
    text: (run) => [
      'Loss is surprise: minus the logarithm of the probability that the model gave to the right token. Sure and right costs nearly nothing; sure and wrong costs a lot.',
      run.uniform_loss === null
        ? 'A model that knows nothing, and bets the same on every token, has a loss of ln V, with V the tokens it knows.'
        : `A model that knows nothing, and bets the same on each of its tokens, has a loss of ${number(run.uniform_loss, 2)} here. Every improvement is measured from there.`,
      'Training makes one number small: the mean loss over all tokens of the batch. It has no other aim.',
    ],
    act: 'In the scene “Loss”, find the token with the greatest surprise.',
    shows: (now) => ({ view: 'step', scene: 2, ...withToken(now) }),
  },
  {
    id: 'backward',
    title: 'Backward: what caused the error?',
    text: () => [
      'Now the error goes back through the network. Think of a detective who retraces the steps of a case and asks at each station: how much did this one add to the mistake? But nothing is guessed: each share is an exact product of numbers from the forward pass. This is backpropagation.',
      'In the end each weight has a gradient: how the loss would change with the weight. Every token of the batch pushes every weight, some up, some down. Most of the pushes cancel.',
    ],
    act: 'In the scene “Backward”, look at the tug of war over one weight.',
    shows: (now) => ({ view: 'step', scene: 3, ...withToken(now) }),
  },
  {
    id: 'update',
    title: 'Update: every weight moves a little',
    text: (run) => [
      'Each weight is moved a little against its gradient. If all gradients together are too long, they are shortened first (clipping). The learning rate sets how far a weight moves.',
      `${run.optimizer ? `The update rule of this run is ${run.optimizer}.` : 'The page shows the update rule beside each tensor.'} It remembers earlier gradients, so that one odd batch does not throw the weights about.`,
      'Then the page reads the same text again with the new weights.',
    ],
    act: 'In the scene “Update”: one weight before and after. Press Space for the next one, “Did it help?”',
    shows: (now) => ({ view: 'step', scene: 4, ...withToken(now) }),
  },
  {
    id: 'loop',
    title: 'The loop',
    text: (run) => [
      'Read, predict, compare, trace back, adjust: that was one lap. Think of a basketball player: throw, look, correct, throw again. Here a whole batch of throws is corrected at once.',
      `This run is at lap ${count(run.step)}${run.num_steps ? ` of ${count(run.num_steps)}` : ''}. Nothing else happens in training. Each point of the curve is one lap. The curve falls because of all those small moves.`,
    ],
    act: 'Mark a step early in the curve, then open it with “open it”. Come back with “Back to this stop”.',
    shows: () => ({ view: 'live' }),
  },
  {
    id: 'held-out',
    title: 'Does it learn or memorise?',
    text: (run) => [
      'The training loss is measured on text that the model learns from. Validation is measured on text that was set aside. If only the training loss falls, the model memorises.',
      run.ladder.length > 1
        ? `The ladder compares it with ${count(run.ladder.length)} simpler models on the same unseen text. A model that passes a rung knows something that this simpler model cannot know.`
        : 'If a run has counted its text, the page draws a ladder of older models, which only count, as lines across the curve.',
    ],
    act: 'See which rung was passed last, and which comes next.',
    shows: () => ({ view: 'live' }),
  },
  {
    id: 'scale',
    title: 'Scale',
    text: (run) => [
      `“Large” means three things: how many numbers the model has${model(run) ? ` (yours: ${large(model(run)!.parameters)})` : ''}, how much text it has read, and how much computing went into it. The well-known models have many thousand times more of each, and are trained by the same loop.`,
      'If all three grow together, the loss falls along a smooth curve. If one stays small, it becomes the limit: a large model on a small text only memorises it.',
    ],
    act: 'Find the chart of sizes. With runs of several sizes in this folder you see your own curve.',
    shows: () => ({ view: 'growth' }),
    place: 'by-size',
  },
  {
    id: 'emergence',
    title: 'Emergence',
    text: () => [
      'Read the samples from the first to the last: noise, then common letters, then words, then more. The model was never trained for spelling; spelling helped to predict. An ability that is absent in small or young models and present in larger or older ones is called emergent. Think of musicians who practised scales and one evening improvise a piece.',
      'But be careful. An all-or-nothing score can make a steady slope look like a cliff: many tokens must be right at once. Look at the probabilities too, and at more than one run.',
    ],
    act: 'Compare two samples from the same prompt. What is new in the later one?',
    shows: () => ({ view: 'growth' }),
    place: 'samples',
  },
  {
    id: 'your-turn',
    title: 'Your turn',
    text: () => [
      'Last, let it write. It continues whatever you give it: predict, draw a token, read it, predict again. The temperature sets how daring the draw is. Remember that it knows no facts, only what tends to follow what.',
      'You have seen the whole loop. Beside each view, “Explain” gives the same at four depths: a picture, words, the maths, and the code.',
    ],
    act: 'Type a beginning, let the model continue it, then click a token and choose another one.',
    shows: () => ({ view: 'chat' }),
  },
];

export function secondsOf(stop: Stop, run: RunFacts): number {
  const words = [...stop.text(run), stop.act].join(' ').split(/\s+/).length;
  return words / WORDS_PER_SECOND + SECONDS_TO_ACT;
}

/** The time that the tour still takes from a stop on, in words. */
export function left(from: number, run: RunFacts): string {
  const minutes = Math.round(STOPS.slice(from).reduce((sum, stop) => sum + secondsOf(stop, run), 0) / 60);
  return minutes < 1 ? 'less than a minute left' : minutes === 1 ? 'about a minute left' : `about ${minutes} minutes left`;
}

/** Why the tour cannot continue yet, or nothing. It shows a real run, so it waits for one that can be opened. */
export function waitsFor(run: RunFacts | null): string {
  if (run === null) return 'There is no run to show yet. Start one with “etude train”. The tour begins by itself when the run appears here.';
  if (run.last_step >= run.first_step) return '';
  if (run.state === 'running' || run.state === 'starting' || run.state === 'not begun')
    return 'Your run has no step yet that can be opened. This takes a moment. The tour begins by itself.';
  return 'This run ended before it had a step that can be opened. Choose another run above, or start one. The tour begins by itself.';
}
