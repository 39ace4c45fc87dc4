"""The loss of each token of a text at every checkpoint of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.config import DeviceSettings
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.device import choose_device
from etude.errors import InputError
from etude.model.folder import load_model_folder
from etude.run.checkpoints import verify_checkpoint
from etude.run.published_history import PublishedHistory
from etude.run.record import RunRecord
from etude.watch.prompts import Passage, look
from etude.watch.text_types import LikeliestToken, StoryAnswer

MOST_CHECKPOINTS = 40
"""Checkpoints read in one answer: a longer run is thinned evenly."""


def loss_by_checkpoint(
    recorded: RunRecord | PublishedHistory,
    tokenizer: EtudeTokenizer,
    passage: Passage,
    steps: Sequence[int] | None,
    on_progress: Callable[[int, int], None],
) -> StoryAnswer:
    """Read a text, or tokens, at the checkpoints of a run, or of a history that Etude did not record.

    They are those of ``steps``, or all, thinned evenly where there are many.

    ``on_progress(done, total)`` is called before each checkpoint.

    Returns:
        tokens; steps; losses, by step, of every token but the first, nats; likeliest, by step, at every position but
            the last.

    Raises:
        InputError: a step without a checkpoint, a damaged checkpoint, or a passage that is too long.
    """
    checkpoints = recorded.checkpoints
    chosen = sorted(set(steps)) if steps is not None else sorted(checkpoints)
    missing = [step for step in chosen if step not in checkpoints]
    if missing or not chosen:
        raise InputError(f"no checkpoint of step {missing[0] if missing else 0}")
    if len(chosen) > MOST_CHECKPOINTS:
        last = len(chosen) - 1
        chosen = [chosen[round(i * last / (MOST_CHECKPOINTS - 1))] for i in range(MOST_CHECKPOINTS)]
    settings = recorded.settings.device if isinstance(recorded, RunRecord) else DeviceSettings()
    device = choose_device(settings)
    losses: list[list[float | None]] = []
    likeliest: list[list[LikeliestToken]] = []
    tokens: list[str] = []
    for number, step in enumerate(chosen):
        on_progress(number, len(chosen))
        if isinstance(recorded, RunRecord):
            verify_checkpoint(checkpoints[step])
        model, _ = load_model_folder(checkpoints[step], device=device.torch)
        prompt = look(model.eval(), tokenizer, passage)
        del model
        tokens = list(prompt.tokens)
        losses.append(prompt.losses.tolist())
        guesses = [prompt.guesses(place, count=1)[0] for place in range(len(tokens) - 1)]
        likeliest.append([{"text": guess.text, "probability": guess.probability} for guess in guesses])
        del prompt  # its memory is needed for the next
    return {"tokens": tokens, "steps": chosen, "losses": losses, "likeliest": likeliest}
