"""Score BLiMP by Etude's rule (ties count one half) and by the usual library's (ties count as right).

    python bench/blimp.py ../shared/data/blimp.zip --model runs/NAME --train TEXT.txt
    python bench/blimp.py ../shared/data/blimp.zip --train TEXT.txt            # only uniform logits

Prints the mean over the paradigms and over each phenomenon; with --covered, only of pairs whose words are all in
TEXT.txt.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from etude.data.tokens.vocabulary import train_bpe
from etude.evaluate.blimp import BlimpMean, by_phenomenon, covered, measure_blimp, read_blimp, words_in
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.word_coverage import known_words
from etude.model.build import build_model
from etude.model.config import preset
from etude.pretrained.load_model import load_trained


def uniform(text: str) -> ModelAnswerer:
    """Return a small network whose logits are all equal, with a vocabulary of 2,048 tokens of `text`."""
    tokenizer = train_bpe([text], 2048, "llama3")
    config = preset(
        "llama", vocab_size=tokenizer.vocab_size, hidden_size=16, num_attention_heads=2, num_hidden_layers=1,
        max_position_embeddings=128,
    )  # fmt: skip
    model = build_model(config, seed=0)
    with torch.no_grad():
        model.unembedding()[0].zero_()
    return ModelAnswerer(model, tokenizer, batch_size=256)


def row(name: str, mean: BlimpMean) -> str:
    return (
        f"| {name} | {mean.paradigms} | {mean.pairs:,} | {100 * mean.per_token:.1f} ± {196 * mean.standard_error:.1f} "
        f"| {100 * mean.whole:.1f} | {100 * mean.library:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("blimp", type=Path)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--covered", action="store_true")
    parser.add_argument("--limit", type=int, help="pairs of each paradigm")
    arguments = parser.parse_args()
    paradigms = read_blimp(arguments.blimp)
    coverage = covered(paradigms, known_words([arguments.train.read_bytes()], words_in(paradigms)))
    print(
        f"{coverage.kept:,} of {coverage.total:,} pairs ({100 * coverage.share:.1f} %) have only words of the text"
    )
    if arguments.covered:
        paradigms = list(coverage.paradigms)
    if arguments.limit:
        paradigms = [replace(paradigm, pairs=paradigm.pairs[: arguments.limit]) for paradigm in paradigms]
    if arguments.model:
        trained = load_trained(arguments.model)
        answerer = ModelAnswerer(trained.model, trained.tokenizer, batch_size=64)
    else:
        answerer = uniform(arguments.train.read_text())
    began = time.perf_counter()
    results = measure_blimp(paradigms, answerer)
    print(f"{time.perf_counter() - began:.0f} s")
    print(
        "| phenomenon | paradigms | pairs | by token, ties one half | whole, ties one half | library's rule |"
    )
    print("|---|---|---|---|---|---|")
    for name, mean in by_phenomenon(paradigms, results).items():
        print(row(name, mean))
    library = [result.library for result in results]
    print(f"library's rule over paradigms: {100 * min(library):.1f} to {100 * max(library):.1f} %")


if __name__ == "__main__":
    main()
