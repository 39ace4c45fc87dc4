"""The loss of each token of a text at every checkpoint of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.device import choose_device
from etude.errors import InputError
from etude.model.folder import load_model_folder
from etude.run.checkpoints import verify_checkpoint
from etude.run.record import RunRecord
from etude.watch.prompts import look
from etude.watch.text_types import LikeliestToken, StoryAnswer

MOST_CHECKPOINTS = 40


def story(
    recorded: RunRecord,
    tokenizer: EtudeTokenizer,
    text: str,
    steps: Sequence[int] | None,
    told: Callable[[int, int], None],
) -> StoryAnswer:
    """``text`` read at the run's checkpoints: all, or evenly spread ones where there are many, or those of ``steps``.

    ``told`` hears how many have been read, and of how many.

    Returns:
        tokens; steps; losses, by step, of every token but the first, nats; likeliest, by step, behind every token but
        the last.

    Raises:
        InputError: a step without a checkpoint, a damaged one, or a text that is too long.
    """
    there = recorded.checkpoints
    wanted = sorted(set(steps)) if steps is not None else sorted(there)
    missing = [step for step in wanted if step not in there]
    if missing or not wanted:
        raise InputError(f"there is no checkpoint of step {missing[0] if missing else 0}")
    if len(wanted) > MOST_CHECKPOINTS:
        last = len(wanted) - 1
        wanted = [wanted[round(i * last / (MOST_CHECKPOINTS - 1))] for i in range(MOST_CHECKPOINTS)]
    device = choose_device(recorded.settings.device)
    losses: list[list[float | None]] = []
    likeliest: list[list[LikeliestToken]] = []
    tokens: list[str] = []
    for number, step in enumerate(wanted):
        told(number, len(wanted))
        verify_checkpoint(there[step])
        model, _ = load_model_folder(there[step], device=device.torch)
        prompt = look(model.eval(), tokenizer, text)
        tokens = list(prompt.tokens)
        losses.append(prompt.losses.tolist())
        guesses = [prompt.guesses(place, count=1)[0] for place in range(len(tokens) - 1)]
        likeliest.append([{"text": guess.text, "probability": guess.probability} for guess in guesses])
    return {"tokens": tokens, "steps": wanted, "losses": losses, "likeliest": likeliest}
