"""Write and read model folders, the format of checkpoints, which transformers, llama.cpp and others load."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from etude.errors import EtudeError, InputError
from etude.files import read_json, write_atomic, write_failure, write_json
from etude.model.adapter import is_factor
from etude.model.adapter_folder import (
    adapter_tensors,
    read_factors,
    with_adapter_of,
    write_adapter_config,
)
from etude.model.build import empty_model, fill_buffers, materialise
from etude.model.config import ModelConfig
from etude.model.hf_config import config_from_hf, config_to_hf
from etude.model.language_model import LanguageModel
from etude.model.lora import merged_state
from etude.model.stored_matrix import as_parameter, stays_stored
from etude.model.weights import StoredWeights
from etude.run.weight_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    WEIGHTS,
    WEIGHTS_INDEX,
    base_folder,
    config_file,
    is_adapted,
)
from etude.untrusted import require_utf8

CONFIG = "config.json"
GENERATION = "generation_config.json"
CARD = "README.md"
MOST_TABLE_BYTES = 1 << 27
"""Rotary tables of this size are always allowed: 131,072 positions of 128 numbers."""
OWN_FILES = frozenset({CONFIG, GENERATION, CARD, WEIGHTS, WEIGHTS_INDEX, ADAPTER_CONFIG, ADAPTER_WEIGHTS})
"""The files of a model folder besides its tokenizer."""


def save_model_folder(
    folder: Path,
    model: torch.nn.Module,
    config: ModelConfig,
    tokenizer_files: Path | None,
    *,
    card: str | None = None,
) -> None:
    """Write `model` as a model folder: :func:`save_weights_folder` of its current weights."""
    save_weights_folder(folder, model.state_dict(), config, tokenizer_files, card=card)


def save_weights_folder(
    folder: Path,
    weights: dict[str, Tensor],
    config: ModelConfig,
    tokenizer_files: Path | None,
    *,
    card: str | None = None,
    base: str | None = None,
) -> None:
    """Write `weights` as a model folder into `folder`, which is created if missing.

    It writes config.json, model.safetensors and README.md (the model card: `card`, or a plain one), and copies every
    file of the folder `tokenizer_files`, which may hold a generation_config.json; otherwise it writes one. Of an
    adapted network it writes the adapter in place of configuration and weights if `base` names the folder of its base,
    else the merged weights. To write all of them or none, use a folder from `etude.files.staged_folder`.

    Raises:
        EtudeError: the files cannot be written.
    """
    # A folder with a configuration besides an adapter would be a whole model to other programs.
    write_model_files(folder, config, tokenizer_files, card, with_config=base is None)
    try:
        if base is not None:
            write_adapter_config(folder, config, base)
            write_tensors(folder / ADAPTER_WEIGHTS, adapter_tensors(weights, config))
        else:
            write_tensors(folder / WEIGHTS, stored_state(merged_state(weights, config), config))
    except OSError as error:
        raise write_failure(folder, error) from error


def write_model_files(
    folder: Path,
    config: ModelConfig,
    tokenizer_files: Path | None,
    card: str | None,
    *,
    with_config: bool = True,
) -> None:
    """Write the files of a model folder besides its weights: see :func:`save_weights_folder`.

    Raises:
        EtudeError: the files cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if with_config:
            write_json(folder / CONFIG, config_to_hf(config))
        if tokenizer_files is None or not (tokenizer_files / GENERATION).is_file():
            write_json(folder / GENERATION, _generation_config(config))
        write_atomic(folder / CARD, card if card is not None else plain_card(config))
        if tokenizer_files is not None:
            for file in sorted(tokenizer_files.iterdir()):
                if file.is_file() and (file.name == GENERATION or file.name not in OWN_FILES):
                    shutil.copyfile(file, folder / file.name)
    except OSError as error:
        raise write_failure(folder, error) from error


def write_tensors(path: Path, state: dict[str, Tensor]) -> None:
    """Write ``state`` as a safetensors file. Raises EtudeError where it cannot be written."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise EtudeError(
            f"could not write {path}: {error}; free some space or choose another folder"
        ) from error
    path.chmod(0o644)  # the library makes it readable for the owner alone


def _generation_config(config: ModelConfig) -> dict[str, int]:
    ids = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    return {name: value for name, value in ids.items() if value is not None} | {"do_sample": True}


def plain_card(config: ModelConfig) -> str:
    """Return a model card with the facts that follow from the configuration."""
    parameters = sum(tensor.numel() for tensor in empty_model(config).parameters())
    return (
        f"---\nlibrary_name: {config.family.library}\npipeline_tag: text-generation\ntags:\n- etude\n---\n\n"
        f"# A {config.model_type} language model\n\n"
        f"{parameters:,} parameters, vocabulary of {config.vocab_size:,} tokens, "
        f"up to {config.max_position_embeddings:,} positions. Trained with Etude.\n"
    )


def stored_state(state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Convert tensors to the names and layouts of the saved format. The factors of an adapter are not saved."""
    own = {name: tensor for name, tensor in state.items() if not is_factor(name)}
    return config.family.to_saved(own, config)


def load_config(folder: Path) -> ModelConfig:
    """Read the configuration of a model folder.

    Raises:
        InputError: config.json or an adapter is missing, damaged, or of an unknown family.
    """
    config = _read_config(folder)
    return with_adapter_of(folder, config) if is_adapted(folder) else config


def _read_config(folder: Path) -> ModelConfig:
    """Return the configuration in config.json."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that holds {CONFIG} and {WEIGHTS}")
    file = config_file(folder)
    values = read_json(file)
    try:
        if isinstance(values, dict) and values.get("quantization_config"):
            raise InputError("the weights are quantised: use the original, unquantised model")
        return config_from_hf(values)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def load_model_folder(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[LanguageModel, ModelConfig]:
    """Load the network in a folder that Etude or transformers wrote, in one weight file or several.

    Names and shapes in the files are compared with those of the configuration before the network is built. Of a large
    model in 16 bits the matrices stay in the files, which must not be changed meanwhile
    (:mod:`etude.model.stored_matrix`).

    Raises:
        InputError: a damaged file, or tensors that are missing, unexpected, or of another shape; the message names the
            first of them.
    """
    config, weights, model = _open_whole(folder)
    expected = stored_state(model.state_dict(), config)
    state = config.family.from_saved(weights.read(expected), config)
    if config.adapter is not None:
        state |= read_factors(folder, config)
    elif torch.device(device).type == "cpu" and dtype == torch.float32 and stays_stored(state):
        fill_buffers(model, device).load_state_dict(
            {n: as_parameter(t) for n, t in state.items()}, assign=True
        )
        return model, config
    materialise(model, device, dtype).load_state_dict(state)
    return model, config


def require_whole(folder: Path) -> None:
    """Raise InputError where :func:`load_model_folder` would, for all that the heads of the weight files show."""
    _open_whole(folder)


def _open_whole(folder: Path) -> tuple[ModelConfig, StoredWeights, LanguageModel]:
    """Return configuration, weight files, and the network without memory, once names and shapes agree."""
    require_utf8(folder)
    config = load_config(folder)
    weights = StoredWeights.open(folder if config.adapter is None else base_folder(folder), config)
    # A layer has several tensors. A damaged config.json may ask for so many layers that building them takes minutes.
    if config.num_hidden_layers > len(weights.shapes):
        raise InputError(
            f"{folder / CONFIG} asks for {config.num_hidden_layers} layers, "
            f"but the weights beside it hold {len(weights.shapes)} tensors: one of the two belongs to another model"
        )
    _refuse_absurd_tables(folder, config, weights)
    model = empty_model(config)
    expected = stored_state(model.state_dict(), config)
    weights.require({name: tuple(tensor.shape) for name, tensor in expected.items()})
    if config.adapter is not None:
        read_factors(folder, config)
    return config, weights, model


def _refuse_absurd_tables(folder: Path, config: ModelConfig, weights: StoredWeights) -> None:
    """Raise InputError where the rotary tables would be larger than the weights: no weight file limits their size."""
    tables = 2 if any(config.sliding_layers) else 1  # sliding layers have angles of their own
    needed = 8 * config.max_position_embeddings * config.rotary_dim if config.position == "rope" else 0
    needed *= tables
    stored = 4 * sum(math.prod(shape) for shape in weights.shapes.values())
    if needed > max(stored, MOST_TABLE_BYTES):
        raise InputError(
            f"{folder / CONFIG} asks for {config.max_position_embeddings:,} positions, whose tables would take "
            f"{needed / 2**20:,.0f} MiB beside {stored / 2**20:,.0f} MiB of weights: lower max_position_embeddings"
        )
