"""``etude generate`` and ``etude score``: make text with a trained model, or measure how probable it finds a text."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import typer

from etude.cli.options import ModelFolder

READING = ("data.text_field", "data.encoding", "data.csv_delimiter", "data.csv_header")
Prompt = Annotated[str, typer.Argument(help="What the text begins with; `-` reads it from standard input.")]
Temperature = Annotated[float, typer.Option(help="0 takes the likeliest token each time.")]
TopK = Annotated[int | None, typer.Option(help="Choose among the k likeliest.")]
TopP = Annotated[float, typer.Option(help="Choose among the likeliest that hold this share.")]
MinP = Annotated[float, typer.Option(help="Drop what is less likely than this share of the likeliest.")]
MaxNewTokens = Annotated[int, typer.Option(help="How many tokens at most.")]
RepetitionPenalty = Annotated[
    float, typer.Option(help="Above 1, tokens that the text has already become less likely (such as 1.1).")
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT", help="End before this text; repeat it for several. `\\n` is a line end, `\\t` a tab."
    ),
]
Samples = Annotated[
    int, typer.Option("--samples", "-n", help="So many continuations, each with its own seed.")
]
Seed = Annotated[int, typer.Option(help="The same seed writes the same text.")]
Logprobs = Annotated[
    int | None,
    typer.Option(
        metavar="K", help="Each new token with its log-probability, and the K likeliest tokens there."
    ),
]
ContinuationJson = Annotated[
    bool,
    typer.Option(
        "--json", help="One JSON object a continuation: prompt, text, tokens, finish_reason, seed (logprobs)."
    ),
]
GenerationDtype = Annotated[
    Literal["fp32", "bf16"],
    typer.Option(
        help="bf16 reads weights rounded to 8 bits: up to half as fast again, from 10 M parameters on."
    ),
]
Source = Annotated[
    str,
    typer.Argument(metavar="FILE", help="A text, of any kind that can be trained on; `-`: standard input."),
]
TextField = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="data.text_field=NAME", help=f"How the text is read: {', '.join(READING)}."
    ),
]
JsonLines = Annotated[bool, typer.Option("--json", help="One JSON object a token, then one for the whole.")]
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
    """Continue a text, shown as it is written."""
    from etude.generate import command
    from etude.generate.sampling import SamplingSettings

    settings = SamplingSettings(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        max_new_tokens=max_new_tokens,
    )
    output = command.OutputOptions(samples=samples, json_lines=json_lines, logprobs=logprobs)
    command.generate(model, prompt, settings, seed, dtype, [_unescaped(text) for text in stop or []], output)


def _unescaped(text: str) -> str:
    """`text` with its written line ends and tabs, which not every shell can hand over otherwise."""
    marks = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
    return re.sub(r"\\([nrt\\])", lambda found: marks[found[1]], text)


def score(
    model: ModelFolder,
    source: Source,
    text_field: TextField = None,
    json_lines: JsonLines = False,
    summary: Summary = False,
) -> None:
    """The log-probability of each token of a text, and its bits per byte."""
    from etude.config import load_settings
    from etude.data.reading.options import ReadingOptions
    from etude.errors import InputError
    from etude.generate import command

    if any(override.partition("=")[0].strip() not in READING for override in text_field or []):
        raise InputError(f"--set takes only {', '.join(READING)} here: leave other settings out")
    options = ReadingOptions.of(load_settings(None, text_field or []).data)
    command.score(model, source, options, json_lines=json_lines, summary=summary)
