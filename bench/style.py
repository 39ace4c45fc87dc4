"""Measure whether a tuning learned a writer's style: whom its answers are taken for, beside those of its base.

    python bench/tuning_data.py replies PLAYS replies
    etude train replies --from MODEL --lora --name writer
    python bench/style.py runs/writer PLAYS SPEECHES

PLAYS and SPEECHES as in tuning_data.py. A naive Bayes classifier over character n-grams tells three writers apart: the
author of the plays, other people (the speeches), and the base, from its answers. It is fitted on passages that the
tuning did not see. The table shows its accuracy on further passages, since a share means little where that is low. All
texts are cut to the same length and have single blanks, so that neither their length nor their layout counts.

The base, the base with the most similar training speeches in its prompt, and the tuned model then answer the same
speeches, which none of them was trained on. The table shows how many of the answers are taken for the author's, and how
many share six words in a row with a training answer: those would be copied, not written. The best prompt is chosen by
the same figure, which favours the base. Five to ten minutes for 135 million parameters on one core.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from etude.data.conversations.conversation import Example, Message
from etude.data.conversations.encode import encode_prompt
from etude.evaluate.statistics import Estimate, proportion
from etude.evaluate.tuning.asking import Respondent
from etude.evaluate.tuning.examined import ExaminedTuning, details_folder
from etude.evaluate.tuning.held_out import Question, question_of, squeezed, training_questions
from etude.evaluate.tuning.paired_tests import sign_test
from etude.evaluate.tuning.prompting import TrainingAnswers, prompted, training_answers
from etude.generate.chat_prompt import Chatter
from etude.generate.engine import generate
from etude.generate.sampling import SamplingSettings
from etude.run.checkpoints import list_checkpoints, step_of
from harness import markdown_table, put_block, write_result
from tuning_data import LONGEST, SHORTEST, SPEECHES_HELD_OUT, SPEECHES_TRAINED, speeches_with_next

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tuning.md"
AUTHOR, BASE, OTHERS = "the author", "the base", "other people"
GRAM, CHARS, SMOOTHING = 4, 160, 0.5
"""Characters of an n-gram, characters of a text that count, and what is added to every count."""
FITTED, TESTED = 150, 60
"""Passages of each writer that the classifier is fitted on, and on which it is tested; as many questions."""
COPIED_WORDS = 6
ROWS, NEW_TOKENS = 12, 56
"""Answers that are written together, and tokens of each; as many characters as count, or a little more."""


class Recogniser:
    """Take a text for that of one of several writers: multinomial naive Bayes, all of them equally likely before.

    N-grams that no writer has do not count. Every writer has about as much text, so that none is favoured.
    """

    def __init__(self, passages: Mapping[str, Sequence[str]]) -> None:
        least = min(sum(len(grams(text)) for text in texts) for texts in passages.values())
        self.counts = {name: _counted(texts, least) for name, texts in passages.items()}
        self.known = set[str]().union(*self.counts.values())

    def scores(self, text: str) -> dict[str, float]:
        """Return the log-probability of the text's n-grams for each writer."""
        own = [gram for gram in grams(text) if gram in self.known]
        return {
            name: sum(
                math.log((counts[gram] + SMOOTHING) / (counts.total() + SMOOTHING * len(self.known)))
                for gram in own
            )
            for name, counts in self.counts.items()
        }

    def writer(self, text: str) -> str:
        """Return the likeliest writer; of a text without a known n-gram, the last one."""
        scores = self.scores(text)
        return max(reversed(scores), key=scores.__getitem__)


def grams(text: str) -> list[str]:
    """Return the n-grams of the first characters of a text, which begin and end with a blank."""
    whole = f" {squeezed(text)[:CHARS]} "
    return [whole[at : at + GRAM] for at in range(len(whole) - GRAM + 1)]


def _counted(texts: Iterable[str], most: int) -> Counter[str]:
    """Count the n-grams of the first texts, ``most`` in all."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(grams(text)[: most - counts.total()])
    return counts


def copied(text: str, training: Iterable[str]) -> bool:
    """Return whether a text shares :data:`COPIED_WORDS` words in a row with one of the training answers."""
    return not _runs(text).isdisjoint(set[str]().union(*map(_runs, training)))


def _runs(text: str) -> set[str]:
    words = re.findall(r"\w+", text.casefold())
    return {" ".join(words[at : at + COPIED_WORDS]) for at in range(len(words) - COPIED_WORDS + 1)}


def passages_of(folder: Path) -> list[str]:
    """Return sentences of the speeches in a folder, of the length of the speeches of a play, in random order."""
    texts = (
        squeezed(file.read_text(encoding="utf-8", errors="replace")) for file in sorted(folder.glob("*.txt"))
    )
    sentences = (sentence for text in texts for sentence in re.split(r"(?<=[.!?]) ", text))
    kept = [sentence for sentence in sentences if SHORTEST <= len(sentence) <= LONGEST]
    random.Random(2).shuffle(kept)
    return kept


class Writers:
    """The base and the tuned model of a run, which answer speeches."""

    def __init__(self, run: Path, questions: Sequence[Question], threads: int) -> None:
        self.tuning = ExaminedTuning.of(run)
        self.questions = questions
        self.respondent = partial(Respondent, within=details_folder(run) / "parts", threads=threads)
        self.training: TrainingAnswers = training_answers(questions, training_questions(self.tuning.corpus))
        self.newest = list_checkpoints(run / "checkpoints")[-1]

    def answers(self, model: Path, examples: int = 0, asked: Sequence[Question] | None = None) -> list[str]:
        """Return an answer to each question (those of the run unless others are ``asked``), after so many examples.

        Answers that are known from an earlier call are not written again.
        """
        respondent = self.respondent(model)
        turns = []
        for at, question in enumerate(asked or self.questions):
            shots = self.training.similar[at][:examples] if examples else ()
            turns.append(prompted(question, question.answer, shots).messages[:-1])
        texts: list[str] = []
        for first in range(0, len(turns), ROWS):
            block = turns[first : first + ROWS]
            request = ["style", first, NEW_TOKENS, [[asdict(turn) for turn in before] for before in block]]
            texts += respondent.saved(request, partial(_written, respondent, block, first))
        return texts


def _written(respondent: Respondent, block: Sequence[Sequence[Message]], seed: int) -> list[str]:
    trained = respondent.trained
    chatter = Chatter.of(trained.tokenizer, trained.model.config.max_position_embeddings)
    settings = SamplingSettings(temperature=0.8, top_p=0.95, max_new_tokens=NEW_TOKENS)
    prompts = [encode_prompt(list(turns), trained.tokenizer, chatter.template) for turns in block]
    written = generate(
        trained.model, prompts, settings, stop_ids=chatter.stop_ids, seed=seed, at_context_end="stop"
    )
    return [trained.tokenizer.decode(row.token_ids, skip_special_tokens=True) for row in written]


def asked(pairs: Sequence[tuple[str, str]]) -> list[Question]:
    """Return speeches as questions, with the next ones as their answers."""
    examples = (Example("conversation", (Message("user", q), Message("assistant", a))) for q, a in pairs)
    return [question for question in map(question_of, examples) if question is not None]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the table of who is taken for whom, and what it was measured with."""
    began = time.perf_counter()
    pairs = speeches_with_next(arguments.plays)
    unseen = pairs[SPEECHES_TRAINED + SPEECHES_HELD_OUT :]
    random.Random(2).shuffle(unseen)
    fitted, rest = unseen[: arguments.fitted], unseen[arguments.fitted :]
    questions = asked(pairs[SPEECHES_TRAINED : SPEECHES_TRAINED + SPEECHES_HELD_OUT] + rest)[
        : arguments.tested
    ]
    writers = Writers(arguments.run, questions, arguments.threads)
    base, others = writers.tuning.base.folder, passages_of(arguments.speeches)
    recogniser = Recogniser(
        {
            AUTHOR: [answer for _, answer in fitted],
            OTHERS: others[: arguments.fitted],
            BASE: writers.answers(base, asked=asked(fitted)),
        }
    )
    texts = {
        "the author": [question.answer for question in questions],
        "other people": others[arguments.fitted :][: arguments.tested],
        "base": writers.answers(base),
        **{f"base, {count} examples": writers.answers(base, count) for count in arguments.examples},
        f"tuned, step {step_of(writers.newest):,}": writers.answers(writers.newest),
    }
    training = [answer for _, answer in pairs[:SPEECHES_TRAINED]]
    taken = {name: [recogniser.writer(text) for text in written] for name, written in texts.items()}
    rows = {
        name: {
            **{writer: _figure([own == writer for own in taken[name]]) for writer in (AUTHOR, OTHERS, BASE)},
            "copied": _figure([copied(text, training) for text in written]),
        }
        for name, written in texts.items()
    }
    best = max(
        (name for name in rows if name.startswith("base")), key=lambda name: rows[name][AUTHOR]["value"]
    )
    tuned = list(texts)[-1]
    differences = [
        (own == AUTHOR) - (other == AUTHOR) for own, other in zip(taken[tuned], taken[best], strict=True)
    ]
    return {
        "base": Path(writers.tuning.base.source).name,
        "fitted": len(fitted),
        "questions": len(questions),
        "rows": rows,
        "best_prompt": best,
        "p_value": sign_test(differences),
        "seconds": round(time.perf_counter() - began, 1),
        "some": {name: written[:5] for name, written in texts.items()},
    }


def _figure(right: Sequence[bool]) -> dict[str, float]:
    estimate: Estimate = proportion(list(map(float, right)))
    return {"value": estimate.value, "low": estimate.interval.low, "high": estimate.interval.high}


def table_of(content: Mapping[str, Any]) -> str:
    """Return a row for each writer: for whom its texts are taken, and how many are copied, with 95 % intervals."""
    rows = [
        [name, *(f"{f['value']:.2f} ({f['low']:.2f} to {f['high']:.2f})" for f in figures.values())]
        for name, figures in content["rows"].items()
    ]
    return markdown_table(
        ["texts of", *(f"taken for {name}" for name in (AUTHOR, OTHERS, BASE)), "copied"], rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("plays", type=Path)
    parser.add_argument("speeches", type=Path)
    parser.add_argument("--fitted", type=int, default=FITTED, help="passages to fit the classifier on")
    parser.add_argument("--tested", type=int, default=TESTED, help="questions")
    parser.add_argument("--examples", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--page", action="store_true", help="write the table into docs/tuning.md")
    arguments = parser.parse_args()
    content = measure(arguments)
    table = table_of(content)
    print(table)
    print(f"tuned against {content['best_prompt']}: p = {content['p_value']:.4f} (sign test, one-sided)")
    print(write_result("style", content, threads=arguments.threads))
    if arguments.page:
        put_block(PAGE, "style", table)


if __name__ == "__main__":
    main()
