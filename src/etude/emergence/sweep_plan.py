"""What a sweep trains: sizes by seeds with one recipe, fixed and recorded before the first run begins.

RUNS/NAME/sweep.json            the members in their order, what each costs, and the hash of the probes
RUNS/NAME/settings/MEMBER.toml  the whole settings of each
RUNS/NAME/MEMBER/               their run folders
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from etude.config import Resolved, Settings, to_toml, with_values
from etude.data.prepared_data import PreparedData
from etude.emergence.sweep_costs import SizeCost
from etude.errors import InputError
from etude.evaluate.questions import Questions
from etude.files import read_object, staged_folder, write_atomic, write_json
from etude.messages import command
from etude.model.cost import count_parameters
from etude.plan.plan import Plan, plan_on
from etude.plan.sizes import SHAPES, Size
from etude.plan.time_budget import worth_reading

SCHEMA = 1
FILE, SETTINGS, PROGRESS = "sweep.json", "settings", "progress"
FEWEST_TOKENS = 200_000
_TRIAL_TOKENS = 2_300_000


@dataclass(frozen=True)
class Member:
    """One run of the family. num_parameters: without the embeddings; seconds: expected time, including its probes."""

    name: str
    num_parameters: int
    hidden_size: int
    num_hidden_layers: int
    seed: int
    seconds: float


@dataclass(frozen=True)
class SweepPlan:
    """A family of runs, smallest first; all members of a size are adjacent."""

    folder: Path
    tokens: int
    suites: tuple[str, ...]
    num_items: int
    probes_hash: str
    members: tuple[Member, ...]

    @property
    def sizes(self) -> list[int]:
        """Numbers of parameters, ascending."""
        return sorted({member.num_parameters for member in self.members})

    @property
    def largest(self) -> list[Member]:
        return [member for member in self.members if member.num_parameters == self.sizes[-1]]

    @property
    def smaller(self) -> list[Member]:
        return [member for member in self.members if member.num_parameters != self.sizes[-1]]

    @property
    def progress(self) -> Path:
        return self.folder / PROGRESS

    def settings_file(self, member: Member) -> Path:
        return self.folder / SETTINGS / f"{member.name}.toml"

    def write(self, settings: Mapping[str, Settings]) -> None:
        """Write the folder of the sweep, whole or not at all.

        Raises:
            InputError: the name is in use.
        """
        if self.folder.exists():
            raise InputError(
                f"{self.folder} already exists: resume it with `{command('sweep', '--resume', self.folder)}`, or "
                "choose another --name"
            )
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with staged_folder(self.folder, replace=False) as staging:
            (staging / SETTINGS).mkdir()
            (staging / PROGRESS).mkdir()
            for name, member_settings in settings.items():
                write_atomic(staging / SETTINGS / f"{name}.toml", to_toml(member_settings))
            content = asdict(dataclasses.replace(self, folder=Path()))
            del content["folder"]
            write_json(staging / FILE, {"schema": SCHEMA, **content})

    @classmethod
    def load(cls, folder: Path) -> SweepPlan:
        """Open a sweep; raise InputError if ``folder`` is not a sweep, or is damaged."""
        if not (folder / FILE).is_file():
            raise InputError(f"{folder} is not a sweep: start one with `etude sweep --name NAME`")
        content = read_object(folder / FILE)
        try:
            if content["schema"] != SCHEMA:
                raise InputError(f"{folder / FILE} has another schema than {SCHEMA}: update Etude")
            members = tuple(_member(member) for member in content["members"])
            if not members:
                raise ValueError("no members")
            return cls(
                folder,
                int(content["tokens"]),
                tuple(map(str, content["suites"])),
                int(content["num_items"]),
                str(content["probes_hash"]),
                members,
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{folder / FILE} is damaged ({error}): start the sweep again") from None


def _member(content: dict[str, Any]) -> Member:
    name = str(content["name"])
    if not name or Path(name).name != name or name.startswith("."):
        raise ValueError("a member's name leads out of the folder")
    return Member(
        name,
        int(content["num_parameters"]),
        int(content["hidden_size"]),
        int(content["num_hidden_layers"]),
        int(content["seed"]),
        float(content["seconds"]),
    )


def plan_family(
    data: PreparedData,
    settings: Settings,
    num_sizes: int,
    seeds: Sequence[int],
    seconds: float,
    make_questions: Callable[[int], Questions],
) -> tuple[list[Member], dict[str, Resolved], int, Questions]:
    """Plan a sweep; return members, their settings, the tokens that each reads, and the questions.

    ``make_questions`` makes the questions for a context. The number of tokens is chosen so that everything takes
    ``seconds`` on this machine. Every size reads the same tokens in the same batches; width, depth and learning rates
    follow from the dial. Each size is timed first: its step, compiled as in training, and its answers.

    Raises:
        InputError: the time is too short for the family.
    """
    if not 1 <= num_sizes <= len(SHAPES):
        raise InputError(f"--sizes is from 1 to {len(SHAPES)}, not {num_sizes}")
    began = time.monotonic()
    shapes = SHAPES[:num_sizes]
    # One precision for all sizes: that of the widest, which takes most of the time.
    widest = plan_on(data, settings, Size(shapes[-1], _TRIAL_TOKENS))
    settings = with_values(settings, {"device.dtype": widest.device.dtype})
    trials = [plan_on(data, settings, Size(shape, _TRIAL_TOKENS)) for shape in shapes]
    questions = make_questions(_context(trials[0]))
    making = time.monotonic() - began
    costs = [SizeCost.measure(trial, questions, making) for trial in trials]
    left = seconds - (time.monotonic() - began)

    def family(tokens: int) -> list[Plan]:
        # One weight decay, that of the widest: a law over sizes cannot hold across a change in it.
        widest = plan_on(data, settings, Size(shapes[-1], tokens)).settings.train
        shared = with_values(settings, {"train.weight_decay": widest.weight_decay})
        return [plan_on(data, shared, Size(shape, tokens)) for shape in shapes]

    def takes(plans: Sequence[Plan]) -> float:
        return len(seeds) * sum(cost.whole(plan) for cost, plan in zip(costs, plans, strict=True))

    tokens = _TRIAL_TOKENS
    for _ in range(4):  # iterate, since the cost of the tasks between steps depends on the number of steps
        free = left - takes(family(tokens)) + len(seeds) * tokens * sum(cost.token for cost in costs)
        tokens = max(FEWEST_TOKENS, int(free / (len(seeds) * sum(cost.token for cost in costs))))
        tokens = worth_reading(tokens, trials[0])
    plans = family(tokens)
    if takes(plans) > 1.2 * left:
        raise InputError(
            f"{len(shapes)} sizes by {len(seeds)} seeds need about {takes(plans) / 60:.0f} minutes on this machine for "
            "the shortest useful runs: give that as --time, or fewer --sizes, --seeds or --items"
        )
    if _context(plans[0]) != _context(trials[0]):
        questions = make_questions(_context(plans[0]))
    members, chosen = [], {}
    for cost, plan in zip(costs, plans, strict=True):
        for seed in seeds:
            member = _of(plan, seed, cost.whole(plan))
            members.append(member)
            chosen[member.name] = plan.settings
    return members, chosen, tokens, questions


def _context(plan: Plan) -> int:
    return plan.settings.train.context


def _of(plan: Plan, seed: int, seconds: float) -> Member:
    parameters = count_parameters(plan.model).non_embedding
    return Member(
        f"{plan.model.hidden_size}x{plan.model.num_hidden_layers}-seed{seed}",
        parameters,
        plan.model.hidden_size,
        plan.model.num_hidden_layers,
        seed,
        seconds,
    )
