"""One run in several processes: each takes its rows of every batch, and their gradients are added up.

``torchrun`` starts the processes, one for each GPU of a machine (or a few on a CPU), and tells each its place. The
first leads: it alone prepares the text, evaluates, prints and writes. Only this file speaks to torch.distributed.

The sums are plain ones after the backward pass, not ``DistributedDataParallel``. What that gains is to send the first
gradients while the last are computed; a compiled backward pass gives out all of them at its end, so there would be
nothing to gain. What it costs is exactness: it lays its messages out anew after the first step of every session, and
where a number stands in a message decides in which order more than two ranks are added. Here the layout is always
the same, so a resumed run gives the same bits as one that was never stopped.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# Its functions take the group as a default, and hold the one that is there when they are defined. Optimizers come to
# import it: after a group was made that would outlive its end, and its threads abort a process on its way out.
import torch.distributed.nn.functional
from torch import Tensor

from etude.device import place_on_machine, require_one_machine
from etude.errors import EtudeError, InputError

NUMBERS_AT_ONCE = 2**23
"""In one message: 32 MiB in fp32, enough to be limited by the connection and not by how many messages there are."""
PATIENCE = timedelta(days=1)
"""How long the others wait for the first, which may have a large text to prepare."""
_CPU = torch.device("cpu")
_Number = TypeVar("_Number", int, float)


@dataclass(eq=False)
class Ranks:
    """The processes that train one run, as one of them sees them. Alone, nothing is ever sent.

    Every process calls the same methods in the same order; each waits there for the others.
    """

    rank: int = 0
    count: int = 1
    launcher: int | None = None  # the process that started them
    _invited: bool = field(default=False, init=False)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def orphaned(self) -> bool:
        """Whether the process that started the ranks has ended: killed, or by a signal that it does not pass on."""
        return self.launcher is not None and os.getppid() != self.launcher

    def rows(self, batch_rows: int) -> range:
        """This rank's rows of a batch.

        Raises:
            InputError: the rows do not divide among the ranks.
        """
        require_even_rows(batch_rows, self.count)
        share = batch_rows // self.count
        return range(self.rank * share, (self.rank + 1) * share)

    def total(self, number: _Number) -> _Number:
        """Return the sum of each rank's ``number``: all int, or all float (added in float64).

        It travels beside the GPUs: none of them is waited for.
        """
        if self.count == 1:
            return number
        value = torch.tensor(number, dtype=torch.int64 if isinstance(number, int) else torch.float64)
        with _together():
            dist.all_reduce(value)
        return type(number)(value)

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set on any rank."""
        return self.total(int(flag)) > 0

    @torch.no_grad()
    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks: the same bits on all of them."""
        if self.count == 1:
            return
        with _together():
            sent = []
            for bucket in _buckets(tensors):
                joined = torch.cat([tensor.reshape(-1) for tensor in bucket])
                sent.append((bucket, joined, dist.all_reduce(joined, async_op=True)))
            for bucket, joined, work in sent:
                assert work is not None
                work.wait()
                pieces = torch.split(joined, [tensor.numel() for tensor in bucket])
                pairs = zip(pieces, bucket, strict=True)
                torch._foreach_copy_(bucket, [piece.view_as(tensor) for piece, tensor in pairs])

    def invite(self, invitation: Any) -> None:
        """By the first rank: tell the others what to do, once; None lets them go."""
        self._invited = True
        if self.count > 1:
            with _together():
                dist.broadcast_object_list([invitation], src=0, device=_CPU)

    def invitation(self) -> Any:
        """By the others: what the first rank invites them to; None when it came to nothing."""
        heard: list[Any] = [None]
        with _together():
            dist.broadcast_object_list(heard, src=0, device=_CPU)
        return heard[0]

    def end(self) -> None:
        """By the first rank: let the others go if they were never invited."""
        if self.leads and not self._invited:
            with suppress(EtudeError):
                self.invite(None)


ALONE = Ranks()


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """The processes that ``torchrun`` started together with this one; without it, this one alone.

    Raises:
        InputError: they are on several machines.
        EtudeError: they cannot reach each other.
    """
    launcher = os.getppid()
    require_one_machine()
    rank, count = place_on_machine()
    if count == 1:
        yield Ranks(launcher=launcher) if "TORCHELASTIC_RUN_ID" in os.environ else ALONE
        return
    if not dist.is_initialized():
        # Numbers on the CPU travel by gloo, numbers on a GPU by nccl, whichever of them the run comes to use.
        with _together():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE
            )
        atexit.register(dist.destroy_process_group)
    ranks = Ranks(rank, count, launcher)
    try:
        yield ranks
    finally:
        ranks.end()


def require_even_rows(batch_rows: int, count: int) -> None:
    """Every rank has the same number of rows.

    Raises:
        InputError: it cannot.
    """
    if batch_rows % count:
        fewer = max(n for n in range(1, count) if batch_rows % n == 0)
        more_rows = -(-batch_rows // count) * count
        raise InputError(
            f"train.batch_rows={batch_rows} does not divide among the {count} processes of torchrun: "
            f"use --nproc-per-node={fewer}, or begin a run with --set train.batch_rows={more_rows}"
        )


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in their order, as many together as make a message."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(member.numel() for member in bucket) >= NUMBERS_AT_ONCE:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


@contextmanager
def _together() -> Iterator[None]:
    """Around what needs the other processes: their absence is one line, any other error stays what it is."""
    try:
        yield
    except RuntimeError as error:
        if not _is_of_the_group(error):
            raise
        raise EtudeError(
            "another process of this run has ended: what it said before tells why; "
            "continue from the last checkpoint with --resume"
        ) from error


def _is_of_the_group(error: RuntimeError) -> bool:
    """Whether the connection to the others failed. gloo has no class for its errors, only its name in their text."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
