"""``etude generate`` and ``etude score``: generate text with a trained model, or score the probability of a text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from etude.cli.options import ModelFolder

if TYPE_CHECKING:
    from etude.generate.sampling import SamplingSettings

READING = ("data.text_field", "data.encoding", "data.csv_delimiter", "data.csv_header")
"""Settings on how a text is read, which `etude score` takes."""
Prompt = Annotated[str, typer.Argument(help="Text to continue; `-` reads it from standard input.")]
Temperature = Annotated[float, typer.Option(help="0 always takes the most likely token.")]
TopK = Annotated[int | None, typer.Option(help="Sample among the k most likely tokens.")]
TopP = Annotated[
    float,
    typer.Option(help="Sample among the fewest most likely tokens that hold this share of the probability."),
]
MinP = Annotated[
    float, typer.Option(help="Drop tokens less likely than this share of the most likely one's probability.")
]
MaxNewTokens = Annotated[int, typer.Option(help="Number of tokens at most.")]
RepetitionPenalty = Annotated[
    float, typer.Option(help="Above 1: make tokens that are in the text already less likely (such as 1.1).")
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT", help="End before this text; repeat it for several. `\\n` is a line end, `\\t` a tab."
    ),
]
Samples = Annotated[
    int, typer.Option("--samples", "-n", help="Number of continuations, each with its own seed.")
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same text.")]
Logprobs = Annotated[
    int | None,
    typer.Option(
        metavar="K", help="Show each new token's log-probability, and the K most likely tokens at its place."
    ),
]
ContinuationJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="One JSON object per continuation: prompt, text, tokens, finish_reason, seed (logprobs).",
    ),
]
GenerationDtype = Annotated[
    Literal["fp32", "bf16"],
    typer.Option(
        help="bf16 reads weights with 8 significant bits: up to 1.5 times as fast, from 10 M parameters on."
    ),
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="FILE", help="A text, in any format that can be trained on; `-` is standard input."
    ),
]
TextField = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="data.text_field=NAME", help=f"How the text is read: {', '.join(READING)}."
    ),
]
JsonLines = Annotated[bool, typer.Option("--json", help="One JSON object per token, then one for the whole.")]
Summary = Annotated[bool, typer.Option("--summary", help="Only the figures of the whole text.")]


def generate(
    model: ModelFolder,
    prompt: Prompt = "",
    temperature: Temperature = 0.8,
    top_k: TopK = None,
    top_p: TopP = 0.95,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    max_new_tokens: MaxNewTokens = 256,
    stop: Stop = None,
    samples: Samples = 1,
    seed: Seed = 0,
    logprobs: Logprobs = None,
    json_lines: ContinuationJson = False,
    dtype: GenerationDtype = "fp32",
) -> None:
    """Continue a text, shown while it is generated."""
    from etude.generate import command

    settings = sampling(temperature, top_k, top_p, min_p, repetition_penalty, max_new_tokens)
    output = command.OutputOptions(samples=samples, json_lines=json_lines, logprobs=logprobs)
    command.generate(model, prompt, settings, seed, dtype, [unescaped(text) for text in stop or []], output)


def sampling(
    temperature: float,
    top_k: int | None,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
    max_new_tokens: int,
) -> SamplingSettings:
    """Return the options that `etude generate` and `etude chat` share as settings."""
    from etude.generate.sampling import SamplingSettings

    return SamplingSettings(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        max_new_tokens=max_new_tokens,
    )


def unescaped(text: str) -> str:
    r"""Replace ``\n``, ``\r``, ``\t`` and ``\\`` by their characters, which not every shell can pass otherwise."""
    marks = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
    return re.sub(r"\\([nrt\\])", lambda match: marks[match[1]], text)


def score(
    model: ModelFolder,
    source: Source,
    text_field: TextField = None,
    json_lines: JsonLines = False,
    summary: Summary = False,
) -> None:
    """Print the log-probability of each token of a text, and its bits per byte."""
    from etude.config import load_settings
    from etude.data.reading.options import ReadingOptions
    from etude.errors import InputError
    from etude.generate import command

    if any(override.partition("=")[0].strip() not in READING for override in text_field or []):
        raise InputError(f"--set takes only {', '.join(READING)} here: omit other settings")
    options = ReadingOptions.of(load_settings(None, text_field or []).data)
    command.score(model, source, options, json_lines=json_lines, summary=summary)
