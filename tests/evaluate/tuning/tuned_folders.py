"""A tiny base with a chat template, a run folder with checkpoints of it, and a corpus of conversations."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from bare_models import make_model
from etude.config import load_settings
from etude.data.corpus.corpus import Corpus, build_corpus
from etude.data.reading.options import ReadingOptions
from etude.data.reading.sources import open_sources
from etude.data.tokens.published import model_tokenizer
from etude.evaluate.tuning.examined import Base
from etude.evaluate.tuning.report import TunedRun
from etude.model.folder import load_model_folder, save_model_folder
from etude.pretrained.load_model import load_trained

TEMPLATE = (
    "{% for m in messages %}{{'<|im_start|>'+m['role']+'\n'+m['content']+'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% endif %}"
)
FACTS = 10


def make_base(folder: Path, positions: int = 512, template: str = TEMPLATE) -> Path:
    """Write a tiny base that ends its turns with <|im_end|>."""
    make_model(folder, "llama-grouped-tied")
    facts = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": positions}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def rows(part: str) -> list[dict[str, object]]:
    """Return conversations about facts: two wordings of each in training, another held out."""
    wordings = {"train": ("What is fact {}?", "Tell me fact {}."), "valid": ("Which is fact {}, please?",)}
    return [
        {
            "messages": [
                {"role": "user", "content": wording.format(number)},
                {"role": "assistant", "content": f"Fact {number} is {number * number}."},
            ]
        }
        for wording in wordings[part]
        for number in range(FACTS)
    ]


def write_data(folder: Path) -> Path:
    """Write train.jsonl and valid.jsonl into a folder."""
    folder.mkdir()
    for part in ("train", "valid"):
        content = "".join(json.dumps(row) + "\n" for row in rows(part))
        (folder / f"{part}.jsonl").write_text(content)
    return folder


def make_corpus(folder: Path) -> Corpus:
    """Build the corpus of the conversations, with their own split."""
    return corpus_of(folder, write_data(folder / "rows"))


def corpus_of(folder: Path, *named: Path) -> Corpus:
    """Build a corpus of examples from sources, inside ``folder``."""
    data = load_settings(None, [], {}).data
    spool = folder / "spool"
    spool.mkdir()
    sources = open_sources(
        list(map(str, named)), options=ReadingOptions(examples=True), max_bytes=None, seed=1, spool=spool
    )
    (folder / "corpus").mkdir()
    build_corpus(folder / "corpus", sources, data, lambda *_: None)
    return Corpus(folder / "corpus")


def make_run(folder: Path, steps: tuple[int, ...] = (4,), template: str = TEMPLATE) -> TunedRun:
    """Return a run whose checkpoints are its base, moved a little further at each step."""
    base = make_base(folder / "base", template=template)
    run = folder / "run"
    first = run / "checkpoints" / "step-00000000"
    for step in (0, *steps):
        target = run / "checkpoints" / f"step-{step:08d}"
        model, config = load_model_folder(base)
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.02 * step * torch.randn(parameter.shape, generator=generator)
        save_model_folder(target, model, config, base)
    (run / "run.toml").write_text("")
    return TunedRun.opened(
        run, make_corpus(folder), model_tokenizer(base), Base(first, "a tiny base", "0" * 32), threads=1
    )


def load(folder: Path):  # type: ignore[no-untyped-def]
    """Load a model with its tokenizer, on one thread."""
    return load_trained(folder, 1)
