"""Compare settings of tuning with an adapter or with all weights: what each learns, and what it forgets.

    python bench/tuning_rates.py MODEL examples/faq replies/ eras/ --lr 2e-4 5e-4 --replay 0 0.5 --out tuning.jsonl

Each DATA is a source of conversations as `etude train` takes it (tuning_data.py writes two). Each training is short
and has no run folder. Before and after it: the loss per trained token of the held-out part, how many of the held-out
answers the model writes itself, and the bits per byte of a reference text which has nothing to do with DATA. Each
result is a line of ``--out``; those that are there already are not trained again. ``--report FILE`` prints the table
of such a file. Three to ten minutes for each training of 135 million parameters on one core.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from base_rates import Result, read
from etude.config import load_settings
from etude.data.conversations.template import template_of
from etude.data.corpus.corpus import EXAMPLES
from etude.data.reference import BUILT_IN, reference_text
from etude.evaluate.tuning.asking import Asking, askings_of
from etude.evaluate.tuning.held_out import comparable, held_out_questions, training_questions
from etude.evaluate.tuning.prompting import training_answers
from etude.generate.answers import Asked, answer
from etude.model.folder import load_model_folder
from etude.model.language_model import LanguageModel
from etude.model.lora import first_factors
from etude.plan.plan import Plan, initial_state, make_objective, reference_validation, validation_text
from etude.train.compilation import compile_objective
from etude.train.loop import Loop
from etude.workflow.prepare import make_plan

CONTEXT = 512
MOST_QUESTIONS = 100
KEY = ("model", "data", "rank", "lr", "passes", "rows", "replay", "seed")


def plan_of(arguments: argparse.Namespace, data: str, setting: Result) -> Plan:
    """Return the plan of a training of so many passes over ``data``."""

    def plan(steps: int) -> Plan:
        overrides = [
            f"train.lora_rank={setting['rank']}",
            f"train.lr={setting['lr']}",
            f"data.replay={setting['replay']}",
            f"run.seed={setting['seed']}",
            "data.seed=1",
            f"train.steps={steps}",
            f"train.context={CONTEXT}",
            f"train.batch_rows={setting['rows']}",
            "train.eval_tokens=4096",
            "data.workers=1",
            f"device.threads={arguments.threads}",
        ]
        settings = load_settings(None, overrides, {"data.sources": (data,), "model.base": arguments.model})
        return make_plan(settings, Console(file=io.StringIO()))[0]

    tokens = plan(1).data.train.num_tokens
    return plan(max(1, setting["passes"] * tokens // (setting["rows"] * CONTEXT)))


def measure(arguments: argparse.Namespace, data: str, setting: Result) -> Result:
    """Train once, and return the figures before and after."""
    plan = plan_of(arguments, data, setting)
    assert plan.base is not None
    state = initial_state(plan)
    weights = load_model_folder(plan.base.folder)[0].state_dict()
    state.model.load_state_dict(weights | first_factors(state.model, plan.model, setting["seed"]))
    askings = _askings(plan)
    before = figures(plan, state.model, askings)
    objective = make_objective(plan, state)
    compile_objective(objective, plan.device, plan.settings.device.compile)
    loop = Loop(state, objective, plan.settings.train, plan.device)
    begin = time.perf_counter()
    for _ in range(plan.settings.train.steps):
        loop.one_step()
    seconds = round(time.perf_counter() - begin, 1)
    return setting | {
        "steps": plan.settings.train.steps,
        "dtype": plan.settings.device.dtype,
        "asked": len(askings),
        "before": before,
        "after": figures(plan, state.model, askings),
        "seconds": seconds,
    }


def _askings(plan: Plan) -> list[Asking]:
    corpus = plan.data.corpus
    if not corpus.facts.get(EXAMPLES):
        return []
    questions, _ = held_out_questions(corpus.documents("validation"), MOST_QUESTIONS)
    training = training_answers(questions, training_questions(corpus))
    return askings_of(questions, training, plan.data.tokenizer, plan.model.max_position_embeddings)[0]


def figures(plan: Plan, model: LanguageModel, askings: Sequence[Asking]) -> Result:
    """Return what the model knows of the held-out part, and of the reference text."""
    reference = reference_text(BUILT_IN)
    assert reference is not None
    held_out = validation_text(plan).score(model)
    result = {
        "loss": held_out.loss,
        "held_out_bits": held_out.bits_per_byte,
        "reference": reference_validation(plan, reference).score(model).bits_per_byte,
    }
    return result | ({"right": right_answers(plan, model, askings)} if askings else {})


def right_answers(plan: Plan, model: LanguageModel, askings: Sequence[Asking]) -> int:
    """Return how many questions the model answers as the reference does, up to case and final punctuation."""
    tokenizer, room = plan.data.tokenizer, plan.model.max_position_embeddings
    template = template_of(tokenizer)
    rows, stops = [], set[int]()
    for asking in askings:
        before, own = asking.tokens(asking.question.answer, 0, tokenizer, template, room)
        rows.append(Asked(before, [own], asking.most_new(own)))
        stops |= asking.stops(own, tokenizer)
    answers = answer(model, rows, stops, plan.settings.device.dtype)
    texts = [tokenizer.decode(one.token_ids, skip_special_tokens=True) for one in answers]
    pairs = zip(texts, askings, strict=True)
    return sum(comparable(text) == comparable(asking.question.answer) for text, asking in pairs)


def settings_of(arguments: argparse.Namespace) -> Iterator[tuple[str, Result]]:
    """Yield every source with every setting of the grid."""
    grid = (
        arguments.data,
        arguments.seeds,
        arguments.rank,
        arguments.rows,
        arguments.replay,
        arguments.passes,
        arguments.lr,
    )
    for data, seed, rank, rows, replay, passes, lr in itertools.product(*grid):
        values = (Path(arguments.model).name, Path(data).name, rank, lr, passes, rows, replay, seed)
        yield data, dict(zip(KEY, values, strict=True))


def report(results: Sequence[Result]) -> None:
    """Print the mean over seeds and, of several, the range."""
    print(
        "| data | rank | peak rate | passes | rows | replay | seeds | held-out loss | right | reference text |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    groups = defaultdict(list)
    for result in results:
        groups[tuple(result[name] for name in KEY[1:-1])].append(result)
    for (data, rank, lr, passes, rows, replay), group in sorted(groups.items()):
        cells = [data, str(rank), f"{lr:g}", str(passes), str(rows), f"{replay:g}", str(len(group))]
        cells.append(_cell(group, "loss" if group[0]["asked"] else "held_out_bits"))
        right = [str(result["after"]["right"]) for result in group if result["asked"]]
        cells.append(f"{', '.join(right)} of {group[0]['asked']}" if right else "")
        print("| " + " | ".join([*cells, _cell(group, "reference")]) + " |")


def _cell(group: Sequence[Result], name: str) -> str:
    after = [result["after"][name] for result in group]
    spread = f" ({min(after):.3f} to {max(after):.3f})" if len(after) > 1 else ""
    return f"{group[0]['before'][name]:.3f} -> {statistics.mean(after):.3f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("data", nargs="*")
    parser.add_argument("--rank", type=int, nargs="+", default=[16], help="of the adapter; 0: all weights")
    parser.add_argument("--lr", type=float, nargs="+", default=[5e-4])
    parser.add_argument("--passes", type=int, nargs="+", default=[4])
    parser.add_argument("--rows", type=int, nargs="+", default=[1], help=f"of {CONTEXT} tokens in a step")
    parser.add_argument("--replay", type=float, nargs="+", default=[0.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", default="auto")
    parser.add_argument("--out", type=Path, default=Path("tuning_rates.jsonl"))
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    if arguments.report is not None:
        report(read(arguments.report))
        return
    for data, setting in settings_of(arguments):
        known = {tuple(result.get(name) for name in KEY) for result in read(arguments.out)}
        if tuple(setting.values()) in known:
            continue
        result = measure(arguments, data, setting)
        with arguments.out.open("a") as file:
            file.write(json.dumps(result) + "\n")
        report([result])


if __name__ == "__main__":
    main()
