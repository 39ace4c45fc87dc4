"""What a step shows as trained, context and padding is what the tables of the run's data hold."""

from __future__ import annotations

from itertools import chain, pairwise

import pytest
from rich.console import Console
from test_base import published, settings
from test_pair_runs import pairs
from test_tuned_runs import conversations

from etude.config import Settings, with_values
from etude.plan.plan import initial_state, make_objective
from etude.watch.row_parts import parts_of
from etude.workflow.prepare import make_plan

__all__ = ["conversations", "pairs", "published", "settings"]


@pytest.fixture(params=["conversations", "pairs"])
def examples(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    if request.param == "pairs":
        chosen: Settings = request.getfixturevalue("pairs")
        return chosen
    file = request.getfixturevalue("conversations")
    values = {"data.sources": (str(file),), "data.validation_fraction": 0.3, "train.context": 128}
    return with_values(settings, {**values, "train.batch_rows": 2})


def test_every_token_has_the_state_of_its_table(examples: Settings, console: Console) -> None:
    plan, _ = make_plan(examples, console)
    objective = make_objective(plan, initial_state(plan))
    train, tokenizer = plan.data.train, plan.data.tokenizer
    tables = train.examples
    assert tables is not None
    known: dict[tuple[int, ...], list[bool]] = {}  # what is trained of each conversation, by its tokens
    cuts = sorted({*train.documents.tolist(), *([] if tables.rejected is None else tables.rejected.tolist())})
    for begin, end in pairwise(cuts):
        known[tuple(train.window(begin, end - begin).tolist())] = tables.trained[begin:end].tolist()
    seen = {"example": 0, "chosen": 0, "rejected": 0, "padding": 0}
    for step in range(1, 4):
        for micro in objective.batch(step):
            for place in range(len(micro.inputs)):
                row = objective.row(micro, place)
                inputs, parts = row.inputs[0].tolist(), parts_of(row, tokenizer.decode)
                assert len(list(chain(*(part["trained"] for part in parts)))) == len(inputs)
                for part in parts:
                    seen[part["kind"]] += 1
                    read = inputs[part["first"] : part["first"] + len(part["trained"])]
                    if part["kind"] == "padding":
                        assert set(read) == {train.document_id}
                        assert not any(part["trained"])
                        continue
                    (whole,) = [
                        tokens
                        for tokens in known
                        if list(tokens[: len(read)]) == read
                        and len(tokens) - len(read) == (part["kind"] != "chosen")
                    ]
                    flags = known[whole]
                    assert part["trained"] == [False, *flags[1 : len(read)]]
                    if (
                        part["kind"] != "chosen"
                    ):  # whose last token is read: the rejected one follows in the same row
                        expected = tokenizer.decode([whole[-1]]) if flags[-1] else None
                        assert part["last"] == expected
                    else:
                        assert part["last"] is None
    assert seen["padding"]
    assert seen["chosen"] == seen["rejected"]
    assert seen["example"] or seen["chosen"]
