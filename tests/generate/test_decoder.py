"""The copies of the weights follow their changes, and a compiled step equals the network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import etude
from etude.errors import EtudeError, InputError
from etude.generate import decoder
from etude.generate.decoder import COMPILE_FROM_STEPS, FEWEST_STEPS, Decoder
from etude.generate.engine import generate, stream
from etude.generate.sampling import SamplingSettings
from etude.model import matmul
from etude.model.language_model import LanguageModel
from networks import make_config, make_network
from waiting import PATIENCE

GREEDY = SamplingSettings(temperature=0.0, max_new_tokens=20)

SCRIPT = """
import json, sys
import torch
from etude.generate.decoder import _graph
from etude.generate.engine import generate
from etude.generate.sampling import SamplingSettings
from etude.model import matmul
from networks import make_config, make_network, make_tokens

torch.set_num_threads(1)
settings = SamplingSettings(top_p=0.9, max_new_tokens=60)
worst, graphs = 0.0, []
for name, prompts in (
    ("llama-grouped-tied", [[3] * 5]),
    ("llama-grouped-tied", [[9]]),
    ("qwen3", [[1, 2, 3]]),
    ("gemma3_text", [[1, 2, 3], [5] * 40]),
    ("gpt2", [[1, 2, 3], [5] * 40]),
):
    layers = 2 if name == "gemma3_text" else 1  # one with a window, and one without
    model = make_network(make_config(name, num_hidden_layers=layers), 3).eval()
    plain = generate(model, prompts, settings, stop_ids={7}, seed=1, compile=False)
    compiled = generate(model, prompts, settings, stop_ids={7}, seed=1, compile=True)
    for one, other in zip(plain, compiled, strict=True):
        assert one.token_ids == other.token_ids and one.finish_reason == other.finish_reason
        worst = max([worst, *(abs(a - b) for a, b in zip(one.logprobs, other.logprobs))])
    graphs.append(_graph.cache_info().currsize)
matmul._SMALLEST_PACKED = 0
likeliest = SamplingSettings(temperature=0.0, max_new_tokens=20)
exact, rounded = (
    generate(model, prompts, likeliest, stop_ids=(), compile=True, dtype=dtype)[0].logprobs[0]
    for dtype in ("fp32", "bf16")
)
drift = abs(rounded - exact)
print(json.dumps([worst, drift, [*graphs, _graph.cache_info().currsize]]))
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler, as torch.compile does")
def test_compiled_and_uncompiled_generate_the_same() -> None:
    """Run in a new process, because the shape checks of the tests cannot be traced.

    Two networks of one shape share a graph. Rows end and slide at different times (48 positions).
    """
    tests, source = Path(__file__).parent.parent, Path(etude.__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": f"{tests}{os.pathsep}{source}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr[-3000:]
    worst, drift, graphs = json.loads(done.stdout.splitlines()[-1])
    assert worst < 1e-4 < drift < 0.1  # the last: from weights in bf16
    assert graphs == [1, 1, 2, 3, 4, 5]


@pytest.fixture
def network() -> LanguageModel:
    return make_network(make_config("llama"), 4).eval()


def plain(network: LanguageModel, prompt: list[int]) -> list[int]:
    context = list(prompt)
    for _ in range(GREEDY.max_new_tokens):
        context.append(int(network(torch.tensor([context]))[0, -1].argmax()))
    return context[len(prompt) :]


@torch.no_grad()
def test_changed_weights_are_noticed(network: LanguageModel) -> None:
    def check() -> None:
        assert generate(network, [[1, 2]], GREEDY, stop_ids=())[0].token_ids == plain(network, [1, 2])

    check()
    cached = decoder._decodings[network][1]  # type: ignore[index]
    check()
    assert decoder._decodings[network][1] is cached  # type: ignore[index]
    for parameter in network.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    check()
    network.load_state_dict(make_network(make_config("llama"), 9).state_dict())
    check()
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, torch.nn.Parameter(parameter * 1.1))
    check()


def test_nothing_is_cached_for_a_network_in_training(network: LanguageModel) -> None:
    network.train()
    generate(network, [[1, 2]], GREEDY, stop_ids=())
    assert not decoder._decodings.get(network)  # type: ignore[call-overload]


def test_two_generations_at_once_are_independent(network: LanguageModel) -> None:
    first, second = (stream(network, prompt, GREEDY, stop_ids=()) for prompt in ([1, 2], [7]))
    taken: list[list[int]] = [[], []]
    for left, right in zip(first, second, strict=True):
        taken[0].append(left)
        taken[1].append(right)
    assert taken == [plain(network, [1, 2]), plain(network, [7])]


def test_auto_compiles_only_for_many_steps(network: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[object] = []

    def never(*arguments: object) -> Tensor:
        requested.append(arguments)
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(decoder, "_graph", lambda *_: never)
    for rows, steps, count in ((1, 256, 0), (1, COMPILE_FROM_STEPS, 1), (2, COMPILE_FROM_STEPS, 1)):
        assert not Decoder(network, rows, 48, steps, "auto").fixed
        assert len(requested) == count
    expected = generate(network, [[1, 2]], GREEDY, stop_ids=(), compile=False)
    assert generate(network, [[1, 2]], GREEDY, stop_ids=()) == expected
    with pytest.raises(EtudeError, match=r"failed \(RuntimeError: no compiler\)"):
        generate(network, [[1, 2]], GREEDY, stop_ids=(), compile=True)


def test_bf16_is_refused_where_it_would_be_slow(
    network: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "has_fast_bf16", lambda kind: False)
    with pytest.raises(InputError, match="not known to be fast on this cpu: use --dtype fp32"):
        generate(network, [[1, 2]], GREEDY, stop_ids=(), dtype="bf16")
    monkeypatch.setattr(decoder, "has_fast_bf16", lambda kind: True)
    with pytest.raises(InputError, match="the mlp family does not generate in bf16"):
        generate(make_network(make_config("mlp")), [[1, 2]], GREEDY, stop_ids=(), dtype="bf16")
    monkeypatch.setattr(matmul, "_SMALLEST_PACKED", 0)
    rounded = generate(network, [[1, 2]], GREEDY, stop_ids=(), dtype="bf16")[0]
    exact = generate(network, [[1, 2]], GREEDY, stop_ids=())[0]
    assert rounded.logprobs[0] == pytest.approx(exact.logprobs[0], abs=0.1)
    assert rounded.logprobs != exact.logprobs


def test_a_few_tokens_use_the_network_itself(network: LanguageModel) -> None:
    assert Decoder(network, 1, 48, FEWEST_STEPS - 1, "auto").step is None
    assert Decoder(network, 1, 48, FEWEST_STEPS, "auto").step is not None
    assert Decoder(make_network(make_config("mlp")), 1, 48, 100, True).step is None


def test_where_memory_is_short_the_network_itself_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_network(make_config("llama-grouped-tied"), 3).eval()
    expected = generate(model, [[1, 2, 3], [5]], GREEDY, stop_ids=())
    model = make_network(make_config("llama-grouped-tied"), 3).eval()  # without copies
    copies = 4 * sum(parameter.numel() for parameter in model.parameters())
    monkeypatch.setattr(decoder, "_decoding", lambda *_, **__: pytest.fail("the weights were copied"))
    monkeypatch.setattr(decoder, "free_memory_bytes", lambda kind: copies)
    short = generate(model, [[1, 2, 3], [5]], GREEDY, stop_ids=())
    assert [row.token_ids for row in short] == [row.token_ids for row in expected]
    monkeypatch.setattr(decoder, "has_fast_bf16", lambda kind: True)
    monkeypatch.setattr(decoder, "free_memory_bytes", lambda kind: copies // 2)
    with pytest.raises(InputError, match="use --dtype fp32"):
        generate(model, [[1]], GREEDY, stop_ids=(), dtype="bf16")


def test_copies_that_are_there_need_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_network(make_config("llama-grouped-tied"), 3).eval()
    first = generate(model, [[1, 2, 3]], GREEDY, stop_ids=())
    assert decoder._holds_copies(model, rounded=False)
    assert not decoder._holds_copies(model, rounded=True)
    monkeypatch.setattr(decoder, "free_memory_bytes", lambda kind: 0)
    monkeypatch.setattr(type(model), "hidden", _only_prompts(type(model).hidden))
    assert generate(model, [[1, 2, 3]], GREEDY, stop_ids=())[0].token_ids == first[0].token_ids


def _only_prompts(hidden: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Fail where single tokens are read by the network instead of the copies."""

    def read(self: LanguageModel, tokens: Tensor, **options: Any) -> Tensor:
        assert tokens.shape[1] > 1
        return hidden(self, tokens, **options)

    return read
