"""The API in process: what clients send and read, refusals, and answers that do not depend on company."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from chat_models import CONTEXT, VOCAB, make_shelf
from etude.generate.language import load
from etude.generate.running_batch import Request
from etude.generate.sampling import SamplingSettings
from etude.generate.scoring import score_tokens
from etude.serve.api.app import make_api
from etude.serve.api.models import Limits, ServedModels
from etude.serve.api.scheduler import Scheduler

URL = "http://127.0.0.1:8123"
QUESTION = [{"role": "user", "content": "Who has the lamp?"}]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="module")
def models(shelf: Path) -> ServedModels:
    return ServedModels([str(shelf / "talks"), str(shelf / "base")], [], Limits(rows=4))


@pytest.fixture(scope="module")
def client(models: ServedModels) -> Iterator[TestClient]:
    with TestClient(make_api(models), base_url=URL) as opened:
        yield opened


def chat(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/chat/completions", json={"model": "talks", "messages": QUESTION, **fields})


def complete(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/completions", json={"model": "base", **fields})


def events(answer: Any) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def refusal(answer: Any, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in error["message"]
    return error


def test_models_health_and_tokens(client: TestClient, shelf: Path) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["talks", "base"]
    assert listed[0]["max_model_len"] == CONTEXT
    assert client.get("/v1/models/base").json()["id"] == "base"
    assert client.get("/health").json()["status"] == "ok"
    ids = client.post("/tokenize", json={"model": "base", "prompt": "One day"}).json()
    assert ids["tokens"] == load(shelf / "base").tokenizer.encode("One day")
    assert client.post("/tokenize", json={"model": "talks", "messages": QUESTION}).json()["count"] > 5
    assert refusal(client.get("/v1/models/other"), 404)["code"] == "model_not_found"
    assert refusal(client.post("/v1/embeddings", json={}))["code"] == "unsupported_endpoint"


def test_an_answer_is_that_of_generate(client: TestClient, shelf: Path) -> None:
    language = load(shelf / "base")
    for fields in ({"temperature": 0}, {"temperature": 0.9, "top_p": 0.9, "seed": 7}):
        answer = complete(client, prompt="One day", max_tokens=20, **fields).json()
        expected = language.generate("One day", max_new_tokens=20, **{"top_p": 1.0, **fields})
        assert answer["choices"][0]["text"] == expected
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    said = chat(client, temperature=0, max_completion_tokens=12).json()["choices"][0]
    assert said["message"]["content"] == load(shelf / "talks").chat(QUESTION, max_new_tokens=12)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_same_tokens_alone_and_in_company(client: TestClient, temperature: float) -> None:
    """Thirteen requests at once over four rows: they join, leave and share beginnings."""

    def ask(number: int) -> Any:
        prompt = [5 + (number * at * 7) % (VOCAB - 5) for at in range(1, 3 + 5 * (number % 5))]
        answer = complete(
            client,
            prompt=[7, 8, 9, *prompt],
            max_tokens=3 + number,
            seed=number,
            temperature=temperature,
            logprobs=0,
            ignore_eos=True,
        ).json()["choices"][0]
        assert len(answer["logprobs"]["tokens"]) == 3 + number
        return answer["text"], answer["logprobs"]["token_logprobs"]

    alone = [ask(number) for number in range(13)]
    with ThreadPoolExecutor(13) as pool:
        together = list(pool.map(ask, range(13)))
    for one, other in zip(alone, together, strict=True):
        assert one[0] == other[0]
        assert one[1] == pytest.approx(other[1], abs=2e-5)


def test_streams(client: TestClient) -> None:
    whole = chat(client, temperature=0.8, seed=3, max_tokens=15, logprobs=True, top_logprobs=2).json()
    parts = events(
        chat(
            client,
            temperature=0.8,
            seed=3,
            max_tokens=15,
            logprobs=True,
            top_logprobs=2,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert parts[-1]["usage"] == whole["usage"]
    assert parts[-1]["choices"] == []
    choices = [part["choices"][0] for part in parts[:-1]]
    assert choices[0]["delta"]["role"] == "assistant"
    assert (
        "".join(c["delta"].get("content", "") for c in choices) == whole["choices"][0]["message"]["content"]
    )
    tokens = [token for c in choices if c["logprobs"] for token in c["logprobs"]["content"]]
    wanted = whole["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in tokens] == [token["token"] for token in wanted]
    assert all(len(token["top_logprobs"]) == 2 for token in tokens)
    assert [c["finish_reason"] for c in choices[:-1]] == [None] * (len(choices) - 1)
    assert choices[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]


def test_stop_strings_are_never_shown(client: TestClient) -> None:
    text = complete(client, prompt="The", max_tokens=30, temperature=0, ignore_eos=True).json()["choices"][0][
        "text"
    ]
    stop = text[6:9]
    fields = {"prompt": "The", "max_tokens": 30, "temperature": 0, "ignore_eos": True, "stop": [stop]}
    whole = complete(client, **fields).json()["choices"][0]
    assert whole["text"] == text[: text.index(stop)]
    assert whole["finish_reason"] == "stop"
    streamed = events(complete(client, **fields, stream=True))
    assert "".join(part["choices"][0]["text"] for part in streamed) == whole["text"]


def test_scores_of_prompts(client: TestClient, shelf: Path) -> None:
    """What lm-eval's local-completions sends for a log-likelihood."""
    prompts = [[0, 9, 30, 77, 15], [0, 40, 41, 42, 43, 44, 45, 46]]
    answer = complete(client, prompt=prompts, temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True)
    language = load(shelf / "base")
    for prompt, choice in zip(prompts, answer.json()["choices"], strict=True):
        scores = choice["logprobs"]
        assert len(scores["tokens"]) == len(prompt) + 1
        assert scores["token_logprobs"][0] is None
        expected = score_tokens(language.model, prompt).logprobs
        assert scores["token_logprobs"][1:-1] == pytest.approx(list(expected), abs=1e-5)
        assert choice["text"].startswith(language.tokenizer.decode(prompt))
        for one in scores["top_logprobs"][1:]:
            assert len(one) == 1
    text = complete(client, prompt="One day", max_tokens=0, logprobs=1, echo=True).json()["choices"][0]
    assert text["text"] == "One day"
    assert "".join(text["logprobs"]["tokens"]) == "One day"
    assert sum(text["logprobs"]["token_logprobs"]) == pytest.approx(
        sum(language.score("One day").logprobs), abs=1e-4
    )


def test_several_answers_bias_and_penalties(client: TestClient) -> None:
    fields: dict[str, Any] = {
        "prompt": [0, 9, 30],
        "max_tokens": 6,
        "seed": 5,
        "ignore_eos": True,
        "logprobs": 0,
    }
    both = complete(client, **{**fields, "prompt": [[0, 9, 30], [0, 8]]}, n=2).json()["choices"]
    assert [choice["index"] for choice in both] == [0, 1, 2, 3]
    assert len({choice["text"] for choice in both[:2]}) == 2
    assert both[0]["text"] == complete(client, **fields).json()["choices"][0]["text"]
    forced = complete(client, **fields, logit_bias={"50": 100}).json()["choices"][0]["logprobs"]
    assert len(set(forced["tokens"])) == 1
    assert min(forced["token_logprobs"]) < -1  # of the model itself, without the bias
    varied = complete(
        client, **fields, logit_bias={"50": 50}, frequency_penalty=2, temperature=0, presence_penalty=2
    )
    assert varied.status_code == 200
    banned = complete(
        client, **{**fields, "max_tokens": 40}, temperature=0, presence_penalty=2, frequency_penalty=2
    )
    plain = complete(client, **{**fields, "max_tokens": 40}, temperature=0)
    count = [len(set(a.json()["choices"][0]["logprobs"]["tokens"])) for a in (banned, plain)]
    assert count[0] >= count[1]


def test_refusals_name_the_field(client: TestClient) -> None:
    for field, value in (
        ("tools", [{"type": "function"}]),
        ("temperature", "hot"),
        ("top_p", 2),
        ("n", 0),
        ("seed", 1.5),
        ("stop", [""]),
        ("logit_bias", {"99999": 1}),
        ("reasoning_effort", "low"),
        ("stream_options", {"include_usage": True}),
        ("response_format", {"type": "xml"}),
        ("messages", [{"role": "user", "content": [{"type": "image_url"}]}]),
    ):
        assert refusal(chat(client, **{field: value}))["param"] == field, field
    for code, prompt, most in (
        ("context_length_exceeded", [3] * CONTEXT, 1),
        ("context_length_exceeded", [3], CONTEXT),
    ):
        assert refusal(complete(client, prompt=prompt, max_tokens=most))["code"] == code
    assert refusal(chat(client, model="base"))["code"] == "model_not_supported"
    assert (
        chat(client, max_tokens=2, tools=[], tool_choice="none", user="me", functions=None).status_code == 200
    )
    assert refusal(client.post("/v1/completions", content="{"))["code"] == "invalid_json"
    refusal(client.get("/v1/completions"), 405)
    refusal(client.get("/v2"), 404)


def test_only_callers_that_may(models: ServedModels) -> None:
    client = TestClient(make_api(models, key="secret", origins=["https://mine.example"]), base_url=URL)
    assert client.get("/health").status_code == 200
    assert refusal(client.get("/v1/models"), 401)["code"] == "invalid_api_key"
    own = {"Authorization": "Bearer secret"}
    assert client.get("/v1/models", headers=own).status_code == 200
    refusal(client.get("/v1/models", headers={**own, "Origin": "https://evil.example"}), 403)
    allowed = client.get("/v1/models", headers={**own, "Origin": "https://mine.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://mine.example"
    refusal(client.get("/v1/models", headers={**own, "Host": "evil.example"}), 400)


def test_a_full_queue_is_refused_and_all_else_answered(models: ServedModels) -> None:
    with TestClient(make_api(models, most_waiting=6), base_url=URL) as client, ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda n: complete(client, prompt=[n + 1], max_tokens=60), range(30)))
        assert {answer.status_code for answer in answers} == {200, 429}
        for answer in answers:
            if answer.status_code == 429:
                assert refusal(answer, 429)["code"] == "queue_full"
                assert int(answer.headers["Retry-After"]) >= 1
        assert refusal(complete(client, prompt=[[1]] * 7))["code"] == "too_many_rows"
        assert complete(client, prompt=[1]).status_code == 200


def test_an_answer_can_be_inspected(client: TestClient) -> None:
    made = chat(client, max_tokens=4, seed=2).json()
    kept = client.get(f"/v1/answers/{made['id']}").json()
    choice = kept["choices"][0]
    assert choice["text"] == made["choices"][0]["message"]["content"]
    assert choice["studio"].startswith("#/predictions?run=talks")
    again = complete(
        client, model="talks", prompt=choice["prompt_token_ids"], max_tokens=4, seed=choice["seed"]
    ).json()
    assert again["choices"][0]["text"] == choice["text"]
    refusal(client.get("/v1/answers/none"), 404)


def test_json_schema(client: TestClient) -> None:
    pytest.importorskip("llguidance", reason="pip install 'etude[structured]'")
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["Ivy", "Max"]}, "old": {"type": "boolean"}},
        "required": ["name", "old"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "child", "schema": schema, "strict": True}}
    for seed in range(3):
        answer = chat(client, seed=seed, max_tokens=60, response_format=wanted).json()["choices"][0]
        value = json.loads(answer["message"]["content"])
        assert value["name"] in ("Ivy", "Max")
        assert isinstance(value["old"], bool)
        assert answer["finish_reason"] == "stop"
    bad = {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}
    assert refusal(chat(client, response_format=bad))["param"] == "response_format"


FIELD_NAMES = st.sampled_from(
    [
        "prompt",
        "messages",
        "model",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "n",
        "seed",
        "stop",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "echo",
        "stream",
        "stream_options",
        "presence_penalty",
        "frequency_penalty",
        "response_format",
        "best_of",
        "suffix",
        "tools",
        "user",
        "repetition_penalty",
        "ignore_eos",
        "nonsense",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def check_malformed(client: TestClient, path: str, body: Any) -> None:
    base: dict[str, Any] = {"model": "talks", "max_tokens": 1}
    base |= {"messages": QUESTION} if "chat" in path else {"prompt": "a"}
    content = json.dumps({**base, **body} if isinstance(body, dict) else body)
    answer = client.post(path, content=content)
    assert answer.status_code in (200, 400, 404, 429), (content, answer.text)
    if answer.status_code != 200:
        refusal(answer, answer.status_code)


PATHS = st.sampled_from(["/v1/chat/completions", "/v1/completions", "/tokenize"])
BODIES = st.dictionaries(FIELD_NAMES, VALUES) | VALUES


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PATHS, BODIES)
def test_malformed_requests_get_a_clear_answer(client: TestClient, path: str, body: Any) -> None:
    check_malformed(client, path, body)


def test_short_requests_pass_long_ones_and_none_starves(models: ServedModels) -> None:
    """Everything is queued before the thread starts, so the order does not depend on time."""
    batch, ended, scheduler = models.current("base").batch, [], Scheduler(100)
    finished = threading.Event()

    def row(name: str, most: int) -> Request:
        def on_end(reason: object) -> None:
            assert reason == "length"
            ended.append(name)
            if len(ended) == 25:
                finished.set()

        sampling = SamplingSettings(max_new_tokens=most)
        return Request([3], sampling, 0, frozenset(), lambda token: False, on_end, ignore_end=True)

    scheduler.submit(batch, [row(f"long-{number}", 40) for number in range(24)])
    scheduler.submit(batch, [row("short", 2)])
    scheduler.start()
    assert finished.wait(60)
    scheduler.end()
    assert ended[0] == "short"
    assert sorted(ended[1:5]) == [f"long-{number}" for number in range(4)]  # in the order of arrival
    assert scheduler._done >= 24 * 40


def test_a_long_request_is_passed_only_until_its_own_work_is_done(models: ServedModels) -> None:
    batch, scheduler = models.current("base").batch, Scheduler(100)

    def row(most: int) -> Request:
        sampling = SamplingSettings(max_new_tokens=most)
        return Request([3], sampling, 0, frozenset(), lambda token: False, lambda reason: None)

    scheduler.submit(batch, [long := row(50)])
    for _ in range(10):
        scheduler.submit(batch, [row(5)])
        scheduler._done += 6
    order = [entry[3] for entry in scheduler._waiting]
    assert 0 < order.index(long) < 10


def test_a_client_that_leaves_ends_its_rows(models: ServedModels) -> None:
    batch, scheduler, seen = models.current("base").batch, Scheduler(10), []
    ended = threading.Event()
    sampling = SamplingSettings(max_new_tokens=10_000)

    def on_token(token: object) -> bool:
        seen.append(token)
        request.cancelled = len(seen) == 3
        return False

    def on_end(reason: object) -> None:
        seen.append(reason)
        ended.set()

    request = Request([3], sampling, 0, frozenset(), on_token, on_end, ignore_end=True)
    scheduler.submit(batch, [request])
    scheduler.start()
    assert ended.wait(30)
    scheduler.end()
    assert len(seen) == 4
    assert seen[-1] == "cancelled"
    assert batch.idle


def test_shared_beginnings_are_read_once(models: ServedModels, client: TestClient) -> None:
    batch = models.current("talks").batch
    system = {"role": "system", "content": "Be brief."}
    texts = []
    for _ in range(2):
        before = batch.read_tokens, batch.reused_tokens
        texts.append(chat(client, messages=[system, *QUESTION], temperature=0, max_tokens=3).json())
        read, reused = batch.read_tokens - before[0], batch.reused_tokens - before[1]
    prompt = texts[1]["usage"]["prompt_tokens"]
    assert texts[0]["choices"] == texts[1]["choices"]
    assert reused == prompt - 1
    assert read == 1


@pytest.mark.slow
def test_a_thousand_malformed_requests(client: TestClient) -> None:
    @settings(max_examples=1_000, deadline=None)
    @given(PATHS, BODIES)
    def check(path: str, body: Any) -> None:
        check_malformed(client, path, body)

    check()
