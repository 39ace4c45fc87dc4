"""``etude serve`` as its users start it: a process of its own, called by the `openai` client."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chat_models import make_chat_model
from etude.generate.language import load
from etude.serve.api import models as served_models
from etude.serve.api.models import Limits, ServedModels
from gguf_files import network_tensors, write_gguf
from networks import make_config, make_network
from waiting import PATIENCE
from watched import train_run

QUESTION = [{"role": "user", "content": "Who has the lamp?"}]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_run(tmp_path_factory.mktemp("trained"), "notes", {}).path


@pytest.fixture(scope="module")
def address(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    make_chat_model(folder / "talks")
    config = make_config("llama-plain", vocab_size=300)
    write_gguf(folder / "file.gguf", config, network_tensors(make_network(config), config), kind="Q8_0")
    called = [sys.executable, "-m", "etude", "serve", "talks", "file.gguf", str(run)]
    with subprocess.Popen(called, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if "Ctrl-C" in line:
                break
        address = re.search(r"http://\S+/v1", printed)
        assert address is not None, printed
        yield address[0]
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture(scope="module")
def client(address: str) -> Any:
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=PATIENCE)


def test_a_run_is_followed_and_its_steps_stay(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_models, "FOLLOW_SECONDS", 0.0)
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    set_apart = newest.rename(tmp_path / newest.name)
    try:
        models = ServedModels([str(run)], [], Limits(rows=2))
        steps = ServedModels([str(run)], [16, 32], Limits(rows=2))
        assert models.current("notes").version == "notes@32"
        assert steps.names() == ["notes@16", "notes@32"]
    finally:
        set_apart.rename(newest)
    assert models.current("notes").version == "notes@40"
    assert steps.current("notes@32").folder.name == "step-00000032"
    assert models.problems == {}


@pytest.mark.slow
class TestProcess:
    def test_it_lists_a_folder_a_file_and_a_run(self, client: Any) -> None:
        assert [model.id for model in client.models.list()] == ["talks", "file", "notes"]

    def test_answers_whole_and_in_a_stream(self, client: Any) -> None:
        asked = {"model": "talks", "messages": QUESTION, "max_completion_tokens": 5, "temperature": 0}
        whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
        assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
        parts = list(
            client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        )
        text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
        assert text == whole.choices[0].message.content
        assert parts[-1].usage == whole.usage

    def test_a_run_continues_text_as_generate_does(self, client: Any, run: Path) -> None:
        made = client.completions.create(model="notes", prompt="One day", max_tokens=6, temperature=0)
        assert made.choices[0].text == load(run).generate("One day", max_new_tokens=6, temperature=0.0)

    def test_a_score_has_one_log_probability_for_each_token(self, client: Any) -> None:
        made = client.completions.create(model="file", prompt=[0, 9, 30], max_tokens=1, echo=True, logprobs=1)
        assert len(made.choices[0].logprobs.token_logprobs) == 4

    def test_refusals_are_the_errors_of_the_client(self, client: Any) -> None:
        import openai

        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model="file", prompt=[1] * 200, max_tokens=1)
        assert refused.value.code == "context_length_exceeded"
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="other", prompt="One day")
        with pytest.raises(openai.BadRequestError, match="tools"):
            client.chat.completions.create(model="talks", messages=QUESTION, tools=[{"type": "function"}])

    def test_an_answer_has_its_place_in_the_studio(self, client: Any, address: str) -> None:
        made = client.completions.create(model="notes", prompt="One day", max_tokens=4, temperature=0)
        with urllib.request.urlopen(f"{address}/answers/{made.id}", timeout=PATIENCE) as answer:
            kept = json.load(answer)
        assert "#/predictions?run=notes&s=40" in json.dumps(kept)
