"""The main job: from a person's own text to a language model.

1. ``start`` makes the run folder; ``reopen`` finds the one that an earlier sitting left.
2. ``fit`` goes round the loop with the tasks and listeners that make it a run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from torch import nn

from etude.config import load_settings, resolved, to_toml, with_values
from etude.data.prepare import default_cache, open_prepared
from etude.data.reading.sources import absolute_source
from etude.data.tokens.loader import BatchLoader
from etude.device import peak_memory_bytes
from etude.errors import EtudeError, InputError
from etude.evaluate.ladder import Ladder, build_ladder
from etude.model.build import build_model
from etude.model.cost import count_parameters
from etude.run import RunFolder, free_name, read_json, write_atomic, write_json
from etude.train.checkpoint import EARLY_STEPS, list_checkpoints, load_state, newest_good_checkpoint
from etude.train.compilation import compile_objective
from etude.train.events import RungEvent
from etude.train.loop import Loop, Task, TrainState
from etude.train.objectives import NextToken
from etude.train.optimizer import UpdateRules
from etude.train.validation import ValidationText
from etude.workflow.card import model_card
from etude.workflow.display import training_display
from etude.workflow.plan import Plan, default_name, manifest, plan_on, prepare_data
from etude.workflow.signals import stop_on_signals
from etude.workflow.tasks import Evaluate, Record, Sample, Save

EARLY_EVALUATIONS = frozenset([1, 2, 5, 10, 20, 50, 100])
"""Besides the regular ones: most of what can be seen happens early, and a curve over log-steps needs it."""


@dataclass(frozen=True)
class Outcome:
    """How a sitting ended."""

    run: RunFolder
    reason: str  # finished or stopped
    step: int


def start(plan: Plan, console: Console) -> RunFolder:
    """Make the run folder: tokenizer, n-gram ladder, manifest and settings, all before step 0.

    Raises:
        InputError: the name is taken.
        EtudeError: the folder cannot be written.
    """
    settings = plan.settings
    folder, name = Path(settings.run.folder), settings.run.name
    ladder = cached_ladder(plan, console)
    run = RunFolder.create(folder, free_name(folder, default_name(settings)) if name == "auto" else name)
    plan.data.tokenizer.save(run.tokenizer)
    write_json(run.ladder_file, ladder.to_json())
    write_json(run.manifest_file, manifest(plan))
    sources = tuple(map(absolute_source, settings.data.sources))
    # Last: its presence makes the folder a run. The paths in it hold from any folder.
    write_atomic(run.settings_file, to_toml(with_values(settings, {"data.sources": sources})))
    return run


def reopen(path: Path, console: Console) -> tuple[Plan, RunFolder]:
    """The plan of an existing run, from its own settings, on the same text.

    The tokens are found in the cache by their fingerprint; only when they are gone are the sources read again.

    Raises:
        InputError: no run there, or its tokens are gone and its text has changed since it began.
    """
    run = RunFolder.open(path)
    settings = load_settings(run.settings_file)
    fingerprint = str(read_json(run.manifest_file).get("data_fingerprint"))
    data = open_prepared(default_cache(), fingerprint) or prepare_data(settings, console)
    if data.fingerprint != fingerprint:
        raise InputError(
            f"the text of {path} has changed since it began: put the old text back, or start a new run"
        )
    return plan_on(data, settings), run


def fit(plan: Plan, run: RunFolder, console: Console) -> Outcome:
    """Train from where the run stands to its last step, or until Ctrl-C.

    Raises:
        EtudeError: a failure at run time; the run goes on from its last checkpoint with ``--resume``.
    """
    settings, device = plan.settings, plan.device
    model = build_model(plan.model, seed=settings.run.seed, device=device.torch)
    state = TrainState(model, UpdateRules(model, settings.train))
    restore(run, state, console)
    objective = next_token_objective(plan, model)
    ladder = Ladder.from_json(read_json(run.ladder_file))
    title = f"{run.path}: {plan.model.model_type}, {count_parameters(plan.model).total:,} parameters"
    with (
        training_display(console, title, objective.num_steps, ladder) as display,
        stop_on_signals() as should_stop,
    ):
        if state.step < objective.num_steps:
            problem = compile_objective(objective, model, device, settings.device.compile)
            if problem is not None and settings.device.compile == "auto":
                console.print(f"training without torch.compile ({problem})", markup=False)
        loop = Loop(
            state,
            objective,
            settings.train,
            device,
            tasks=run_tasks(plan, run, ladder),
            listeners=[Record(run), display],
            should_stop=should_stop,
        )
        reason = _go_round(loop, run)
    return Outcome(run, reason, state.step)


def next_token_objective(plan: Plan, model: nn.Module) -> NextToken:
    """Pretraining of ``model`` on the plan's text."""
    train = plan.settings.train
    loader = BatchLoader(
        plan.data.train,
        context=resolved(train.context, "train.context"),
        batch_rows=resolved(train.batch_rows, "train.batch_rows"),
        seed=plan.settings.run.seed,
    )
    return NextToken(
        model,
        loader,
        plan.device,
        num_steps=resolved(train.steps, "train.steps"),
        micro_batch_rows=resolved(train.micro_batch_rows, "train.micro_batch_rows"),
        within_documents=not plan.settings.data.cross_document_attention,
    )


def restore(run: RunFolder, state: TrainState, console: Console) -> None:
    """Bring ``state`` to the newest whole checkpoint, and the logs back to its step; a new run stays as it is."""
    if list_checkpoints(run.checkpoints):
        checkpoint, problems = newest_good_checkpoint(run.checkpoints)
        for problem in problems:
            console.print(problem, markup=False)
        load_state(checkpoint, state)
    for log in (run.metrics, run.samples):
        if state.step > 0:
            log.cut_back(state.step)
        else:  # the loop begins again, with what it does at step 0
            log.path.unlink(missing_ok=True)


def run_tasks(plan: Plan, run: RunFolder, ladder: Ladder) -> Sequence[Task]:
    """Evaluate, then sample, then save: a checkpoint is then never ahead of what was written about it."""
    settings, train = plan.settings, plan.settings.train
    passed = [event["order"] for event in run.metrics.read() if event.get("event") == RungEvent.name]
    evaluate = Evaluate(validation_text(plan), ladder, passed=max(passed, default=0))
    sample = Sample(plan.data.tokenizer, train.sample_prompt, settings.run.seed)
    save = Save(run, plan.model, train.keep_checkpoints, model_card(plan, run.name))
    eval_every = resolved(train.eval_every, "train.eval_every")
    sample_every = resolved(train.sample_every, "train.sample_every")
    save_every = resolved(train.checkpoint_every, "train.checkpoint_every")
    return (
        Task(evaluate, due=lambda step: step % eval_every == 0 or step in EARLY_EVALUATIONS),
        Task(sample, due=lambda step: step % sample_every == 0),
        Task(save, due=lambda step: step in EARLY_STEPS or step % save_every == 0, on_stop=True),
    )


def validation_text(plan: Plan) -> ValidationText:
    """The held-out text that every evaluation of the run, and its n-gram ladder, is scored on."""
    settings = plan.settings
    return ValidationText(
        plan.data.validation,
        resolved(settings.train.context, "train.context"),
        plan.device,
        max_tokens=resolved(settings.train.eval_tokens, "train.eval_tokens"),
        within_documents=not settings.data.cross_document_attention,
    )


def cached_ladder(plan: Plan, console: Console) -> Ladder:
    """The n-gram ladder of this text, scored on what the model is scored on: counted once, then kept in the cache."""
    wanted, scored_bytes = plan.settings.ladder, validation_text(plan).source_bytes
    key = f"{plan.data.corpus_hash}-{wanted.max_order}-{wanted.max_train_bytes}-{scored_bytes}"
    file = default_cache() / "ladders" / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file():
        try:
            return Ladder.from_json(read_json(file))
        except InputError:
            file.unlink()
    with console.status("counting n-grams"):
        ladder = build_ladder(
            plan.data.documents("train"),
            plan.data.documents("validation", scored_bytes),
            orders=range(1, wanted.max_order + 1),
            max_train_bytes=wanted.max_train_bytes,
            max_validation_bytes=scored_bytes,
        )
    assert ladder.validation_bytes == scored_bytes, "model and ladder are scored on the same bytes"
    write_atomic(file, json.dumps(ladder.to_json()))
    return ladder


def _go_round(loop: Loop, run: RunFolder) -> str:
    """Run the loop; whatever ends it, the run's status says so."""
    try:
        reason = loop.run()
    except BaseException as error:
        failure = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        if isinstance(error, EtudeError | KeyboardInterrupt | MemoryError):
            run.write_status("failed", loop.state.step, failure)
        raise
    run.write_status(reason, loop.state.step)
    recorded = read_json(run.manifest_file)
    recorded["peak_memory_bytes"] = peak_memory_bytes()
    write_json(run.manifest_file, recorded)
    return reason
