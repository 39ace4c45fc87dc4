"""Short trainings of networks that are divided among ranks. Run by torchrun, or imported."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from etude.config import TrainSettings
from etude.data.tokens.loader import BatchLoader
from etude.data.tokens.parts import TokenPart
from etude.device import Device
from etude.errors import EtudeError
from etude.model.build import build_model
from etude.model.init import initialise
from etude.model.pieces import whole
from etude.run.checkpoints import Provenance, checkpoint_name, read_marker
from etude.train import divided_checkpoint, parallel
from etude.train.checksum import checksum
from etude.train.divided import divided_model, make_mesh, release_gathered
from etude.train.divided_checkpoint import join_saving, load_divided, save_divided
from etude.train.loop import Loop, TrainState
from etude.train.objectives import NextToken
from etude.train.optimizer import UpdateRules, freeze_others
from etude.train.parallel import ALONE, Ranks
from etude.train.pieces_snapshot import PiecesSnapshot, Writers
from etude.train.rules import muon_pieces
from etude.train.validation import ValidationText
from networks import make_config, make_tokens
from several_ranks import follow_loop

CPU = Device("cpu", "fp32", 1)
ROWS, STEPS, SEED = 8, 3, 3
CASES: dict[str, dict[str, Any]] = {
    "muon": {"network": "qwen3"},
    "adamw": {"network": "gpt2", "optimizer": "adamw"},
    "wide": {
        **{"network": "llama", "hidden_size": 160, "intermediate_size": 320},
        "num_key_value_heads": 2,
    },
}
"""Both update rules. In ``wide`` Muon divides the matrices of the MLP into blocks."""
MORE_CASES: dict[str, dict[str, Any]] = {
    **CASES,
    "tied, micro-batches, dropout": {
        **{"network": "llama-grouped-tied", "micro_batch_rows": 1},
        "dropout": 0.3,
    },
    "qwen2, some layers": {"network": "qwen2-tied", "only": "layers.2"},
    "mlp": {"network": "mlp-direct"},
    "gpt_neox": {"network": "gpt_neox"},
    "olmo2": {"network": "olmo2"},
    "smollm3, documents, recomputed": {
        **{"network": "smollm3", "within_documents": True},
        "recompute": True,
    },
    "gemma3_text": {"network": "gemma3_text", "optimizer": "adamw"},
}
"""Every family, so that pieces are uneven or empty too."""


def prepare(ranks: Ranks, case: dict[str, Any]) -> Loop:
    """Return the loop of a case at step 0, on this rank's pieces if ``ranks`` divide the network."""
    case = {"micro_batch_rows": ROWS, "optimizer": "muon", "only": ""} | case
    sizes = {name: case.pop(name) for name in list(case) if name.endswith(("_size", "_heads"))}
    config = make_config(case.pop("network"), **sizes)
    settings = TrainSettings(
        lr=1e-2,
        muon_lr=1e-2,
        weight_decay=0.1,
        eps=1e-4,
        steps=STEPS,
        optimizer=case.pop("optimizer"),
        only=case.pop("only"),
    )
    if ranks.divided:
        model = divided_model(config, settings, ranks.mesh, "cpu")
        initialise(model, config, SEED)
    else:
        model = build_model(config, seed=SEED)
        freeze_others(model, settings.only)
    documents = [make_tokens(1, 40, seed, vocab=60)[0].add(1).tolist() for seed in range(20)]
    loader = BatchLoader(TokenPart.from_documents(documents, document_id=0), 16, ROWS, seed=7)
    objective = NextToken(model, loader, CPU, num_steps=STEPS, ranks=ranks, **case)
    return Loop(TrainState(model, UpdateRules(model, settings, CPU)), objective, settings, CPU, ranks=ranks)


def evaluation_text() -> ValidationText:
    """Return a text of more windows than ranks, in an uneven number of batches."""
    documents = [make_tokens(1, 40, seed, vocab=60)[0].add(1).tolist() for seed in range(50, 54)]
    part = TokenPart.from_documents(documents, document_id=0, source_bytes=[40] * 4)
    return ValidationText(part, 16, CPU, at_once=32)


def train(ranks: Ranks, case: dict[str, Any]) -> dict[str, Any]:
    """Make five steps of a case; return losses, norms, whole parameters, checksums and an evaluation."""
    loop = prepare(ranks, case)
    model = loop.state.model
    first = checksum(model)
    score = evaluation_text().score(model, ranks)
    result = follow_loop(loop) | {"first checksum": first, "last checksum": checksum(model)}
    result["scores"] = [score.loss, evaluation_text().score(model, ranks).loss]
    result["parameters"] = {name: whole(value.detach()) for name, value in model.named_parameters()}
    result["state"] = {name: whole(value) for name, value in loop.state.rules.named_state().items()}
    result["loop"] = loop if ranks.divided else None
    return result


def muon_bytes(ranks: Ranks) -> int:
    """Return the bytes that one update of the wide network by Muon sends for its Gram matrices."""
    sent: list[int] = []
    add_up = muon_pieces._add_up

    def counted(grams: Any, group: Any) -> None:
        sent.append(sum(gram.nbytes for gram in grams))
        add_up(grams, group)

    muon_pieces._add_up = counted
    try:
        prepare(ranks, CASES["wide"]).one_step()
    finally:
        muon_pieces._add_up = add_up
    return sum(sent)


def save(ranks: Ranks, result: dict[str, Any], folder: Path) -> None:
    """Write the state after the last step as a checkpoint below ``folder``, with all ranks."""
    state = result["loop"].state
    writers = Writers.of(ranks.mesh, ranks.rank)
    snapshot, config = PiecesSnapshot.of(state), state.model.config
    if ranks.leads:
        (folder / "tokenizer").mkdir(parents=True)
        save_divided(folder, snapshot, config, folder / "tokenizer", "card", Provenance(), writers)
    else:
        join_saving(snapshot, config, writers)
    dist.barrier()


def save_with_a_full_disk(ranks: Ranks, folder: Path) -> str:
    """Return what rank 0 reports of a checkpoint that the last rank cannot write, and what is left of it."""

    def full(path: Path, state: dict[str, torch.Tensor]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    loop = prepare(ranks, CASES["muon"])
    loop.one_step()
    write = divided_checkpoint.write_tensors
    if ranks.rank == ranks.count - 1:
        divided_checkpoint.write_tensors = full
    try:
        save(ranks, {"loop": loop}, folder)
        message = ""
    except EtudeError as error:
        message = str(error)
        dist.barrier()
    divided_checkpoint.write_tensors = write
    return f"{message}, leaving {[path.name for path in folder.glob('*step*')]}" if ranks.leads else ""


def loads(ranks: Ranks, case: dict[str, Any], result: dict[str, Any], folder: Path) -> bool:
    """Return whether this rank, of any division, loads the very state of ``result`` from a checkpoint."""
    state = prepare(ranks, case).state
    load_divided(read_marker(folder / checkpoint_name(STEPS)), state)
    same = all(
        torch.equal(whole(value.detach()), result["parameters"][name])
        for name, value in state.model.named_parameters()
    )
    named = state.rules.named_state()
    return (
        same
        and named.keys() == result["state"].keys()
        and all(torch.equal(whole(value), result["state"][name]) for name, value in named.items())
        and (state.step, state.tokens_seen) == (STEPS, STEPS * ROWS * 16)
    )


def every_case(ranks: Ranks, cases: dict[str, dict[str, Any]], shard: int, folder: Path) -> dict[str, Any]:
    """Return the results of the cases, each saved, and loaded again by ranks of which two share a copy."""
    torch.set_num_threads(1)
    ranks.mesh = make_mesh("cpu", ranks.count, shard)
    results: dict[str, Any] = {}
    other = Ranks(ranks.rank, ranks.count)
    other.mesh = ranks.mesh if ranks.count == shard == 2 else make_mesh("cpu", ranks.count, 2)
    for name, case in cases.items():
        result = train(ranks, case)
        save(ranks, result, folder / name)
        result["loaded"] = loads(other, case, result, folder / name)
        release_gathered(result.pop("loop").state.model)
        results[name] = result
    results["muon bytes"] = muon_bytes(ranks)
    results["full disk"] = save_with_a_full_disk(ranks, folder / "full")
    return results


def alone(cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the results of one process."""
    torch.set_num_threads(1)
    return {name: train(ALONE, case) for name, case in cases.items()}


if __name__ == "__main__":
    out = Path(sys.argv[1])
    with parallel.join_ranks() as together:
        torch.save(
            {
                "by four": every_case(together, MORE_CASES, 4, out / "four"),
                "two by two": every_case(together, {"muon": CASES["muon"]}, 2, out / "two"),
            },
            out / f"{os.environ['RANK']}.pt",
        )
