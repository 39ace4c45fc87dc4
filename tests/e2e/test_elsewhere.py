"""A checkpoint is a Hugging Face model folder: the other side is the real `transformers`."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from etude.config import load_settings
from etude.data.primer.generator import documents
from etude.generate.language import load
from etude.workflow import jobs

TORTURE = [
    "",
    " ",
    "Once upon a time, there was a fox.",
    "  two spaces  and\ttabs\n\n\nlines\r\n",
    "1234567 + 89 = 0.5e-3",
    "naïve façade Straße",
    "日本語のテキスト",
    "שלום עולם",
    "🦊👩‍👩‍👧‍👦🇪🇺",
    "e\u0301 combining",
    "\x00\x01 control",
    "<|endoftext|>",
    "don't we'll I'd YOU'RE",
    "a" * 500,
    "{}[]()<>!?;:'\"\\/|@#$%^&*~`",
]


def before_a_tie(likeliest: list[list[tuple[int, float]]]) -> int:
    """Return the number of greedy choices before the first near-tie, which rounding could decide either way.

    After six steps, tokens that always occur together still have nearly equal logits.
    """
    ties = [at for at, ((_, first), (_, second)) in enumerate(likeliest) if first - second < 1e-4]
    return min(ties, default=len(likeliest))


@pytest.mark.parametrize("preset", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_transformers_gives_the_same_ids_and_logits(tmp_path: Path, preset: str, kind: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    file = tmp_path / "stories.txt"
    file.write_text("\n\n".join(document.text for document in documents(7, 40_000)))
    values = {
        "data.sources": (str(file),), "data.workers": 1, "tokenizer.kind": kind, "model.preset": preset,
        "model.size": "nano", "train.steps": 6, "train.context": 48, "train.batch_rows": 4,
        "run.folder": str(tmp_path / "runs"), "device.compile": False, "device.threads": 1,
    }  # fmt: skip
    if kind == "bpe":
        values["tokenizer.vocab_size"] = 400
    run = jobs.grow(load_settings(values=values), Console(file=io.StringIO())).run
    folder = run.checkpoints / "step-00000006"
    language = load(run.path)
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token_id == language.tokenizer.roles.document_id
    for text in TORTURE:
        # Etude reads a user's text as text; in `transformers` the option split_special_tokens does that.
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert ids == language.tokenizer.encode(text), text
        cleaned = language.tokenizer.normalise(text)  # as the training text was
        assert language.tokenizer.decode(ids) == cleaned
        assert tokenizer.decode(ids) == cleaned
    ids = torch.tensor(
        [
            [
                language.tokenizer.roles.document_id,
                *language.tokenizer.encode(documents(8, 500).__next__().text)[:40],
            ]
        ]
    )
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, language.model(ids), rtol=0, atol=1e-5)
    greedy = theirs.generate(ids[:, :9], max_new_tokens=20, do_sample=False, pad_token_id=0)[0, 9:].tolist()
    from etude.generate.engine import generate
    from etude.generate.sampling import SamplingSettings

    writer = pipeline("text-generation", str(folder))
    for prompt in ("", "Once upon", "The fox said: no", "don't\n", "the f"):
        (written,) = writer(prompt, do_sample=False, max_new_tokens=20, return_tensors=True)
        begun = [language.tokenizer.roles.document_id, *language.tokenizer.encode(prompt)]
        assert written["generated_token_ids"][: len(begun)] == begun
        new = written["generated_token_ids"][len(begun) :]
        (generation,) = language.continuations(prompt, temperature=0, max_new_tokens=20, alternatives=2)
        certain = before_a_tie(generation.likeliest)
        assert generation.token_ids[:certain] == new[: min(certain, len(generation.token_ids))], prompt
        if certain == 20:
            (expected,) = writer(prompt, do_sample=False, max_new_tokens=20, return_full_text=False)
            assert expected["generated_text"] == language.generate(prompt, temperature=0, max_new_tokens=20)

    ours = generate(
        language.model, [ids[0, :9].tolist()], SamplingSettings(temperature=0.0, max_new_tokens=20),
        stop_ids=language.tokenizer.roles.stop_ids,
    )[0].token_ids  # fmt: skip
    assert ours == greedy[: len(ours)]
