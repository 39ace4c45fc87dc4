"""A network that is divided among ranks: the steps of one process, one checkpoint, and which tensor is where."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import divided_ranks
from divided_ranks import MORE_CASES, STEPS
from etude.config import ParallelSettings
from etude.errors import InputError
from etude.model.build import empty_model
from etude.model.config import ModelConfig
from etude.model.cost import TrainingMemory, count_parameters
from etude.model.folder import load_model_folder, stored_state
from etude.model.pieces import bounds
from etude.plan.divided_memory import chosen_shard, memory_of_piece, require_processes
from etude.run.checkpoints import checkpoint_name, verify_checkpoint
from etude.train.checkpoint import load_state
from etude.train.divided import cuts, require_divisible
from etude.train.optimizer import parameters_of_config
from etude.train.parallel import ALONE
from etude.train.pieces_snapshot import Piece, loads, owners
from etude.train.rules.muon import blocks_of
from etude.train.rules.muon_pieces import sums_grams
from networks import EVERY, make_config, make_tokens
from resolved import resolved_settings
from started_ranks import results_of_ranks


def assert_same_steps(divided: dict[str, Any], single: dict[str, Any]) -> None:
    """Compare five steps up to rounding. The checksum of the first weights is equal to the bit."""
    assert divided["first checksum"] == single["first checksum"]
    assert divided["last checksum"] == checksum_of(divided["parameters"])
    assert divided["losses"] == pytest.approx(single["losses"], rel=1e-5)
    assert divided["norms"] == pytest.approx(single["norms"], rel=5e-4)
    assert divided["scores"] == pytest.approx(single["scores"], rel=1e-5)
    for name, value in single["parameters"].items():
        torch.testing.assert_close(divided["parameters"][name], value, rtol=1e-4, atol=2e-4)
    assert divided["loaded"]


def checksum_of(parameters: dict[str, torch.Tensor]) -> str:
    module = torch.nn.Module()
    named = [(name, torch.nn.Parameter(value)) for name, value in parameters.items()]
    module.named_parameters = lambda *args, **kwargs: iter(named)  # type: ignore[method-assign]
    return divided_ranks.checksum(module)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of the checkpoints, and the results of four ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    return folder, results_of_ranks(divided_ranks, 4, folder)


@pytest.mark.slow
def test_four_ranks_make_the_steps_of_one(four: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, results = four
    single = divided_ranks.alone(MORE_CASES)
    for division in ("by four", "two by two"):
        for name in results[0][division].keys() & single.keys():
            for result in results:
                assert_same_steps(result[division][name], single[name])
    assert results[0]["by four"].keys() == {*MORE_CASES, "muon bytes", "full disk"}
    full = results[0]["by four"]["full disk"]
    assert "No space left on device" in full
    assert full.endswith("leaving []")
    config = divided_ranks.prepare(ALONE, MORE_CASES["wide"]).state.model.config
    assert results[0]["by four"]["muon bytes"] == gram_bytes(config, 4)
    for name, case in MORE_CASES.items():
        checkpoint = folder / "four" / name / checkpoint_name(STEPS)
        assert_one_process_loads(checkpoint, case, results[0]["by four"][name])
        shards = list(checkpoint.glob("model-*-of-*.safetensors"))
        assert 2 <= len(shards) <= 4
        assert {file.suffix for file in checkpoint.iterdir()} <= {".json", ".md", ".safetensors"}


@pytest.mark.slow
def test_transformers_loads_what_four_ranks_wrote(four: tuple[Path, list[dict[str, Any]]]) -> None:
    from transformers import AutoModelForCausalLM

    for name in ("muon", "adamw", "gpt_neox"):
        checkpoint = four[0] / "four" / name / checkpoint_name(STEPS)
        theirs = AutoModelForCausalLM.from_pretrained(checkpoint)
        ours, _ = load_model_folder(checkpoint)
        tokens = make_tokens(2, 12)
        with torch.no_grad():
            torch.testing.assert_close(theirs(tokens).logits, ours(tokens), rtol=1e-5, atol=1e-5)


def gram_bytes(config: ModelConfig, shard: int) -> int:
    """Return the bytes of the Gram matrices of all blocks that are cut along their long sides."""
    total, dimensions = 0, cuts(config, "muon", shard)
    for parameter in parameters_of_config(config):
        if parameter.role == "hidden":
            blocks = blocks_of(parameter, config)
            sides = [size // count for size, count in zip(parameter.shape, blocks, strict=True)]
            if sums_grams(parameter.shape, blocks, dimensions[parameter.name]):
                total += 4 * blocks[0] * blocks[1] * min(sides) ** 2
    return total


def assert_one_process_loads(checkpoint: Path, case: dict[str, Any], result: dict[str, Any]) -> None:
    """Require that one process continues from the checkpoint with the very state that the ranks had."""
    loop = divided_ranks.prepare(ALONE, case)
    load_state(verify_checkpoint(checkpoint), loop.state)
    for name, value in loop.state.model.named_parameters():
        assert torch.equal(value.detach(), result["parameters"][name]), name
    named = loop.state.rules.named_state()
    assert named.keys() == result["state"].keys()
    assert all(torch.equal(value, result["state"][name]) for name, value in named.items())


@pytest.mark.parametrize("size", [1, 5, 8, 61])
@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_pieces_cover_a_side_as_torch_cuts_it(size: int, count: int) -> None:
    places = [bounds(size, count, index) for index in range(count)]
    assert all(before[1] == after[0] for before, after in pairwise(places))
    assert (places[0][0], places[-1][1]) == (0, size)
    chunks = [len(chunk) for chunk in torch.arange(size).chunk(count)]
    assert [stop - start for start, stop in places if stop > start] == chunks


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shard", [2, 4])
def test_columns_are_cut_only_into_even_widths(name: str, shard: int) -> None:
    config = make_config(name)
    dimensions = cuts(config, "muon", shard)
    assert dimensions.keys() == {parameter.name for parameter in parameters_of_config(config)}
    for parameter in parameters_of_config(config):
        if dimensions[parameter.name] == 1:
            assert len(parameter.shape) == 2
            assert parameter.shape[1] % (2 * shard) == 0


def test_the_matrices_of_a_large_network_are_cut_along_the_long_sides_of_their_blocks() -> None:
    """Then Muon sends Gram matrices of heads and groups of neurons in place of all that they come from."""
    seven_billion = {
        **{"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32},
        **{"num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128},
    }
    config = make_config("llama", **seven_billion)
    dimensions = cuts(config, "muon", 64)
    hidden = [parameter for parameter in parameters_of_config(config) if parameter.role == "hidden"]
    for parameter in hidden:
        assert sums_grams(parameter.shape, blocks_of(parameter, config), dimensions[parameter.name])
    assert gram_bytes(config, 64) < 4 * sum(math.prod(parameter.shape) for parameter in hidden) / 45


def test_every_layer_has_one_owner_and_the_bytes_are_shared_out() -> None:
    config = make_config("qwen3", num_hidden_layers=9)
    pieces = {
        name: Piece(torch.empty(0), tuple(value.shape), 0)
        for name, value in empty_model(config).named_parameters()
    }
    owned = owners(pieces, 4)
    for layer in range(9):
        assert len({owner for name, owner in owned.items() if f"layers.{layer}." in name}) == 1
    totals = loads(pieces, owned, 4)
    assert sum(totals) == 4 * count_parameters(config).total
    assert max(totals) < 1.5 * sum(totals) / 4
    assert owners(pieces, 4, [10**9, 0, 10**9, 10**9])["model.norm.weight"] == 1


@pytest.mark.parametrize("name", EVERY)
def test_each_layer_is_saved_by_itself_as_it_is_among_all(name: str) -> None:
    """An owner converts its own layers alone."""
    config = make_config(name)
    state = {key: value.data for key, value in divided_ranks.build_model(config).named_parameters()}
    saved = stored_state(state, config)
    names: set[str] = set()
    for members in divided_ranks_units(state):
        part = stored_state({key: state[key] for key in members}, config)
        assert all(torch.equal(value, saved[key]) for key, value in part.items())
        back = config.family.from_saved(part, config)
        assert {key: value.shape for key, value in back.items()} == {k: state[k].shape for k in members}
        names |= part.keys()
    assert names == saved.keys()


def divided_ranks_units(state: dict[str, torch.Tensor]) -> list[list[str]]:
    from etude.train.pieces_snapshot import units

    return list(units(state).values())


def with_shard(shard: Any, **values: Any) -> Any:
    settings = resolved_settings({"train.batch_rows": 4, "train.context": 8, **values})
    return settings.model_copy(update={"parallel": ParallelSettings(shard=shard)})


def test_divisions_that_do_not_work_are_refused_with_what_does() -> None:
    config = make_config("llama")
    with pytest.raises(InputError, match=r"parallel\.shard=3 does not divide the 4 processes.* 1, 2, 4"):
        require_divisible(config, with_shard(3), 4, 3)
    with pytest.raises(InputError, match=r"objective preference.*parallel\.shard=1"):
        require_divisible(config, with_shard(2, **{"train.objective": "preference"}), 4, 2)
    with pytest.raises(InputError, match=r"torchrun --nproc-per-node=4 .* parallel\.shard=auto"):
        require_processes(with_shard(4), 1)
    require_processes(with_shard("auto"), 1)
    require_divisible(config, with_shard(2), 4, 2)


def test_auto_divides_only_what_does_not_fit() -> None:
    config = make_config("llama")
    memory = TrainingMemory(weights=400, gradients=400, optimizer=800, activations=50, logits=10)
    assert chosen_shard(with_shard("auto"), config, 4, memory, memory.total) == 1
    assert chosen_shard(with_shard("auto"), config, 4, memory, memory.total - 1) == 4
    assert chosen_shard(with_shard("auto"), config, 1, memory, 1) == 1
    assert chosen_shard(with_shard(2), config, 4, memory, None) == 2
    preference = with_shard("auto", **{"train.objective": "preference"})
    assert chosen_shard(preference, config, 4, memory, 1) == 1  # the user learns that it does not fit
    large = replace(memory, weights=4 * 10**9, gradients=4 * 10**9, optimizer=8 * 10**9)
    piece = memory_of_piece(large, config, 4)
    assert piece.total < large.total / 3.9
