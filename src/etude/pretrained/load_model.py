"""Load a trained network with its tokenizer, from any source of a model (:mod:`etude.pretrained.resolve_source`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from etude.config import DeviceSettings
from etude.data.tokens.published import model_tokenizer
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.device import choose_device
from etude.errors import InputError
from etude.model.folder import load_model_folder
from etude.model.language_model import LanguageModel
from etude.pretrained.resolve_source import model_folder
from etude.run.checkpoints import MARKER, verify_base, verify_checkpoint
from etude.setting_types import Auto


@dataclass(frozen=True)
class Trained:
    """A network and its tokenizer, from a model folder."""

    folder: Path
    model: LanguageModel
    tokenizer: EtudeTokenizer


def load_trained(path: str | Path, threads: int | Auto = "auto") -> Trained:
    """Load the network and tokenizer that ``path`` names; from a run, those of its newest checkpoint.

    Args:
        threads: number of threads of this process from now on; "auto": one for each core.

    Raises:
        InputError: no model at ``path``, damaged files, or a tokenizer that does not belong to the model.
    """
    folder = model_folder(path)
    if (folder / MARKER).is_file():
        verify_checkpoint(folder)
        verify_base(folder)
    model, config = load_model_folder(folder, device=choose_device(DeviceSettings(threads=threads)).torch)
    model.eval()
    tokenizer = model_tokenizer(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"the tokenizer in {folder} has {tokenizer.vocab_size} tokens and the model {config.vocab_size}: "
            "they do not belong together"
        )
    return Trained(folder, model, tokenizer)
