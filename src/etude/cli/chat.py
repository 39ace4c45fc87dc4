"""``etude chat``: talk with a model that knows turns."""

from __future__ import annotations

from typing import Annotated

import typer

from etude.cli.generate import (
    GenerationDtype,
    MaxNewTokens,
    MinP,
    RepetitionPenalty,
    Stop,
    Temperature,
    TopK,
    TopP,
    sampling,
    unescaped,
)
from etude.cli.options import ModelFolder

System = Annotated[str | None, typer.Option(metavar="TEXT", help="The system prompt: how it should answer.")]
Once = Annotated[
    str | None, typer.Option(metavar="QUESTION", help="Answer this question on standard output, and end.")
]
Step = Annotated[
    int | None,
    typer.Option(min=0, help="Begin with the checkpoint of this step of a run (`/step` changes it)."),
]
ChatSeed = Annotated[int, typer.Option(help="The same seed and questions give the same answers.")]


def chat(
    model: ModelFolder,
    system: System = None,
    once: Once = None,
    step: Step = None,
    temperature: Temperature = 0.0,
    top_k: TopK = None,
    top_p: TopP = 0.95,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    max_new_tokens: MaxNewTokens = 256,
    stop: Stop = None,
    seed: ChatSeed = 0,
    dtype: GenerationDtype = "fp32",
) -> None:
    """Talk with a model that has a chat template; from a pipe, each line is a question."""
    from etude.generate.chat_command import ChatOptions, talk

    settings = sampling(temperature, top_k, top_p, min_p, repetition_penalty, max_new_tokens)
    stops = [unescaped(text) for text in stop or []]
    talk(model, ChatOptions(settings, seed, system, once, step, stops, dtype))
