"""Count the work of the report at the end of a tuned run, before the run begins."""

from __future__ import annotations

from etude.data.prepared_data import PreparedData
from etude.data.reference import built_in_texts
from etude.evaluate.tuning.asking import BLOCK, LEAST_ROOM, SHORT_TOKENS
from etude.evaluate.tuning.examined import MOST_QUESTIONS
from etude.evaluate.tuning.prompting import EXAMPLES, MOST_EXAMPLES
from etude.plan.report_costs import ReportWork

READING_SECONDS, COMPARING_SECONDS = 5e-5, 4e-6
"""To read a training conversation, and to compare its question with a held-out one."""
LONGER = 1.5
"""The longest answer of a block, relative to the mean."""
FP32 = 2.0
"""Time to read a token of a reference text, in fp32, relative to that of an evaluation."""


def report_work(data: PreparedData) -> ReportWork:
    """Count the work from the sizes of the held-out conversations of ``data``, which are not read."""
    held_out, training = data.validation, data.train.num_documents
    examples, count = held_out.examples, max(1, held_out.num_documents)
    assert examples is not None, "questions are those of conversations"
    conversation = held_out.num_tokens / count
    answer = int(examples.trained.sum()) / count
    most = min(MOST_EXAMPLES, training)
    prompted = sorted({min(number, most) for number in EXAMPLES if most})
    shots = [0, *prompted, 0]  # the last one: the tuned model
    longest = LONGER * answer
    new = min(SHORT_TOKENS, LEAST_ROOM + 2 * longest) if answer <= SHORT_TOKENS else 0
    size = sum(len(document.encode()) for text in built_in_texts() for document in text.documents)
    tokens = size * held_out.num_tokens / max(1, held_out.source_bytes)
    return ReportWork(
        questions=min(MOST_QUESTIONS, held_out.num_documents),
        at_once=BLOCK,
        text_tokens=2 * FP32 * tokens,
        read_tokens=conversation * (sum(shots) + len(shots)) + 2 * answer * len(shots),
        new_tokens=len(shots) * new,
        preparing=READING_SECONDS * training,
        searching=COMPARING_SECONDS * training,
    )
