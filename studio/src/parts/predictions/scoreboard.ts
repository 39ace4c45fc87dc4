/** "Guess first": the reader guesses the next token before the model's guess is shown. */

export interface Round {
  position: number; // of the token that was guessed
  reader: string | null; // what was typed; null: the reader passed
  model: string; // its likeliest token
  desired: string;
  readerRight: boolean;
  modelRight: boolean;
}
export interface Score {
  rounds: number;
  reader: number;
  model: number;
  both: number;
  neither: number;
}

/**
 * Whether a guess is right, given the tokens that do come. Blanks around it do not count, unless it is all blank. A
 * whole word is right as well where the next token is only its beginning; the beginning of a token is not enough.
 */
export function isRight(guess: string, coming: readonly string[]): boolean {
  const next = coming[0];
  if (next === undefined || guess === '') return false;
  if (guess === next) return true;
  const said = guess.trim(), wanted = next.trim();
  if (said === '' || wanted === '') return false;
  if (said === wanted) return true;
  const text = coming.join('').trimStart();
  const after = text[said.length];
  return said.startsWith(wanted) && text.startsWith(said) && (after === undefined || !/[\p{L}\p{N}]/u.test(after));
}

export function played(position: number, reader: string | null, model: string, coming: readonly string[]): Round {
  const desired = coming[0] ?? '';
  return {
    position, reader, model, desired,
    readerRight: reader !== null && isRight(reader, coming),
    modelRight: model === desired,
  };
}

export function scored(rounds: readonly Round[]): Score {
  const count = (right: (round: Round) => boolean) => rounds.filter(right).length;
  return {
    rounds: rounds.length,
    reader: count((r) => r.readerRight),
    model: count((r) => r.modelRight),
    both: count((r) => r.readerRight && r.modelRight),
    neither: count((r) => !r.readerRight && !r.modelRight),
  };
}

/** Who is ahead, in words. */
export function standing({ rounds, reader, model }: Score): string {
  if (rounds === 0) return 'Nothing guessed yet.';
  if (reader === model) return 'You and the model are level.';
  return reader > model ? `You are ahead by ${reader - model}.` : `The model is ahead by ${model - reader}.`;
}
