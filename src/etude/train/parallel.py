"""Data-parallel training: each process computes the gradients of its rows of a batch, and the ranks sum them.

``torchrun`` starts the processes, one for each GPU of a machine (or a few on a CPU), on one machine or several, and
sets their ranks. Rank 0 alone prepares the text, evaluates, prints and writes. Where a copy of the network does not fit
a process, each rank holds only pieces of it (:mod:`etude.train.divided`), and the last three become collectives.

Otherwise each rank holds a copy. The gradients are then all-reduced after the backward pass, without
``DistributedDataParallel``. DDP would overlap communication with the backward pass, but a compiled backward pass
returns all gradients at its end, so nothing could overlap. And DDP rebuilds its buckets after the first step of every
session. The position of a number in a bucket decides the order in which more than two ranks are added, so a resumed run
would differ in its last bits. The buckets of this module are always the same: a resumed run gives the same bits as an
uninterrupted one.
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

# Import now, before any process group exists: this module binds the default group in its function signatures. Imported
# later (torch.optim does), it keeps a destroyed group alive, whose threads abort the process at exit.
import torch.distributed.nn.functional
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, TCPStore

from etude.device import place_in_run
from etude.errors import EtudeError, InputError

NUMBERS_AT_ONCE = 2**23
"""Size of a bucket: 32 MiB in fp32, large enough that bandwidth is the limit, and not the number of messages."""
PATIENCE = timedelta(days=1)
"""How long the other ranks wait for rank 0, which may have a large text to prepare."""
_CPU = torch.device("cpu")
_Number = TypeVar("_Number", int, float)


@dataclass(eq=False)
class Ranks:
    """One process of a run, and its communication with the others. A single process sends nothing.

    The methods that communicate are collectives: every process must call them in the same order, and waits in each for
    the others.

    Attributes:
        rank: index of this process.
        count: number of processes.
        launcher: process id of torchrun, None without it.
    """

    rank: int = 0
    count: int = 1
    launcher: int | None = None
    mesh: Any = None
    """The processes as :mod:`etude.train.divided` arranges them, if each holds only pieces of the network."""
    writers: Any = None
    """Those that write a checkpoint of such a network (:class:`etude.train.pieces_snapshot.Writers`)."""
    _job_sent: bool = field(default=False, init=False)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes and prints."""
        return self.rank == 0

    @property
    def divided(self) -> bool:
        """Whether each rank holds only pieces of the network, so that running it is a collective."""
        return self.mesh is not None

    def orphaned(self) -> bool:
        """Return whether torchrun has ended: killed, or by a signal that it does not forward."""
        return self.launcher is not None and os.getppid() != self.launcher

    def rows(self, batch_rows: int) -> range:
        """Return the rows of a batch that belong to this rank.

        Raises:
            InputError: the number of rows is not a multiple of the number of ranks.
        """
        require_even_rows(batch_rows, self.count)
        share = batch_rows // self.count
        return range(self.rank * share, (self.rank + 1) * share)

    def total(self, number: _Number) -> _Number:
        """Return the sum of ``number`` over all ranks; every one an int, or every one a float (added in float64).

        The sum is computed on the CPU, so it does not wait for GPUs.
        """
        if self.count == 1:
            return number
        value = torch.tensor(number, dtype=torch.int64 if isinstance(number, int) else torch.float64)
        with group_errors():
            dist.all_reduce(value)
        return type(number)(value)

    def totals(self, numbers: Sequence[float]) -> list[float]:
        """Return the sum of each number over all ranks, in float64."""
        if self.count == 1:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.float64)
        with group_errors():
            dist.all_reduce(values)
        return [float(value) for value in values.tolist()]

    def of_first(self, tensor: Tensor) -> Tensor:
        """Return the ``tensor`` of rank 0, of the same shape on all ranks."""
        if self.count > 1:
            with group_errors():
                dist.broadcast(tensor, src=0)
        return tensor

    def any(self, flag: bool) -> bool:
        """Return whether ``flag`` is set on any rank."""
        return self.total(int(flag)) > 0

    def agree(self, flag: bool) -> bool:
        """Return the ``flag`` of rank 0 on all ranks of a divided network; otherwise ``flag`` itself."""
        if not self.divided:
            return flag
        value = torch.tensor(int(flag))
        with group_errors():
            dist.broadcast(value, src=0)
        return bool(value)

    @torch.no_grad()
    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks, with the same bits on all of them."""
        if self.count == 1:
            return
        with group_errors():
            sent = []  # all buckets are in flight before the first one is awaited
            for bucket in _buckets(tensors):
                joined = torch.cat([tensor.reshape(-1) for tensor in bucket])
                sent.append((bucket, joined, dist.all_reduce(joined, async_op=True)))
            for bucket, joined, work in sent:
                assert work is not None
                work.wait()
                pieces = torch.split(joined, [tensor.numel() for tensor in bucket])
                pairs = zip(pieces, bucket, strict=True)
                torch._foreach_copy_(bucket, [piece.view_as(tensor) for piece, tensor in pairs])

    def send_job(self, job: Any, *, last: bool = True) -> None:
        """Send ``job`` from rank 0 to the other ranks. With None they end. ``last``: whether no other follows."""
        self._job_sent = last
        if self.count > 1:
            with group_errors():
                dist.broadcast_object_list([job], src=0, device=_CPU)

    def receive_job(self) -> Any:
        """Wait for the job that rank 0 sends to the other ranks; None where it has none."""
        received: list[Any] = [None]
        with group_errors():
            dist.broadcast_object_list(received, src=0, device=_CPU)
        return received[0]

    def end(self) -> None:
        """Let the other ranks end, if this is rank 0 and it sent them no job."""
        if self.leads and not self._job_sent:
            with suppress(EtudeError):
                self.send_job(None)


ALONE = Ranks()
"""The ranks of a run in a single process."""


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the process group of ``torchrun``; without torchrun, yield the ranks of a single process.

    Raises:
        InputError: another program than torchrun has set the number of processes.
        EtudeError: the processes cannot connect.
    """
    launcher = os.getppid()
    rank, count = place_in_run()
    if count == 1:
        yield Ranks(launcher=launcher) if "TORCHELASTIC_RUN_ID" in os.environ else ALONE
        return
    if not dist.is_initialized():
        # gloo for tensors on the CPU, nccl for tensors on a GPU: a run may use both.
        with group_errors():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(
                backend, store=_store_of_attempt(), rank=rank, world_size=count, timeout=PATIENCE
            )
        atexit.register(dist.destroy_process_group)
    ranks = Ranks(rank, count, launcher)
    try:
        yield ranks
    finally:
        ranks.end()


def _store_of_attempt() -> PrefixStore:
    """Return the key-value store of torchrun through which the processes find each other.

    torchrun keeps one store over all its restarts. Without a prefix for each, a restarted process may read the address
    of a process that has died, and fail or wait for it.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    serves = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and os.environ["RANK"] == "0"
    store = TCPStore(host, port, is_master=serves, timeout=PATIENCE, multi_tenant=serves)
    return PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def require_even_rows(batch_rows: int, count: int) -> None:
    """Raise InputError unless every rank gets the same number of rows."""
    if batch_rows % count:
        fewer = max(n for n in range(1, count) if batch_rows % n == 0)
        more_rows = -(-batch_rows // count) * count
        raise InputError(
            f"train.batch_rows={batch_rows} does not divide among the {count} processes of torchrun: "
            f"use --nproc-per-node={fewer}, or begin a run with --set train.batch_rows={more_rows}"
        )


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the tensors in order, grouped into buckets of at least ``NUMBERS_AT_ONCE`` numbers (the last: fewer)."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(member.numel() for member in bucket) >= NUMBERS_AT_ONCE:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


@contextmanager
def group_errors() -> Iterator[None]:
    """Turn a lost connection to the other processes into an EtudeError; other errors pass unchanged."""
    try:
        yield
    except RuntimeError as error:
        if not _is_connection_error(error):
            raise
        raise EtudeError(
            "another process of this run has ended; its last message shows why: "
            "continue from the last checkpoint with --resume"
        ) from error


def _is_connection_error(error: RuntimeError) -> bool:
    """Return whether the connection failed. gloo has no exception class, only its name in the messages."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
