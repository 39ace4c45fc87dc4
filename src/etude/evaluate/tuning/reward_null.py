"""The null of a run on sampled answers: the same run with shuffled rewards, in the folder beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from etude.config import Resolved
from etude.errors import InputError
from etude.evaluate.tuning.classification import Null
from etude.evaluate.tuning.examined import details_folder
from etude.evaluate.tuning.held_out import Question
from etude.evaluate.tuning.prompting import is_right
from etude.files import read_json
from etude.run import RunFolder
from etude.run.checkpoints import checkpoint_name
from etude.run.folder import is_run
from etude.run.settings import differences, read_settings
from etude.train.objectives.reward import REWARD

_MAY_DIFFER = {"run.name", "run.folder", "train.shuffle_rewards"}


def nulls_of_rewards(
    run: Path, settings: Resolved | None, step: int, questions: Sequence[Question]
) -> list[Null]:
    """Return the nulls of a run with these settings, as far as they were asked the questions at the same step."""
    if settings is None or settings.train.objective != REWARD or settings.train.shuffle_rewards:
        return []
    nulls = []
    for other in sorted(run.absolute().parent.iterdir()):
        answers = _answers(other, step) if _is_null(other, settings) else {}
        if all(question.asked in answers for question in questions):
            right = tuple(is_right(answers[question.asked], question.answer) for question in questions)
            nulls.append(Null(f"shuffled rewards ({other.name})", right))
    return nulls


def _is_null(other: Path, settings: Resolved) -> bool:
    """Return whether a folder is a run whose rewards are shuffled, and which has these settings otherwise."""
    try:
        theirs = read_settings(RunFolder(other).settings_file) if is_run(other) else None
    except (InputError, OSError):
        return False
    return (
        theirs is not None
        and theirs.train.shuffle_rewards
        and differences(settings, theirs).keys() <= _MAY_DIFFER
    )


def _answers(run: Path, step: int) -> dict[str, str]:
    """Return the answers of a run at a step by question; empty where it was not asked."""
    file = details_folder(run) / f"{checkpoint_name(step)}.json"
    try:
        rows = read_json(file)["answers"]
        return {str(row["question"]): str(row["systems"]["tuned"]["answer"]) for row in rows}
    except (InputError, OSError, KeyError, TypeError):
        return {}
