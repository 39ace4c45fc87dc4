"""llama.cpp as the package xllamacpp brings it: an independent reader of GGUF files."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest


class LlamaCpp:
    """A server in this process for one GGUF file."""

    def __init__(self, path: Path) -> None:
        xllamacpp: Any = pytest.importorskip("xllamacpp")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.warmup = 256, 1, False
        params.cpuparams.n_threads = 1
        params.hostnames, params.port = ["127.0.0.1"], port
        self._server = xllamacpp.Server(params)

    def token_ids(self, texts: Sequence[str], *, specials: bool) -> list[list[int]]:
        """Return the ids of each text; ``specials``: whether special tokens are found in it."""
        return [self._token_ids(text, specials) for text in texts]

    def next_token(self, ids: Sequence[int], count: int) -> dict[int, float]:
        """Return the log-probabilities of the ``count`` likeliest tokens after ``ids``, by id.

        llama.cpp reports none where the likeliest token ends the text, or is a part of a character.
        """
        request = {
            "prompt": list(ids),
            "n_predict": 1,
            "n_probs": count,
            "temperature": 0,
            "cache_prompt": False,
        }
        steps = self._post("completion", request).get("completion_probabilities", [])
        return {entry["id"]: entry["logprob"] for step in steps for entry in step["top_logprobs"]}

    def _token_ids(self, text: str, specials: bool) -> list[int]:
        ids: list[int] = self._post(
            "tokenize", {"content": text, "add_special": False, "parse_special": specials}
        )["tokens"]
        return ids

    def _post(self, place: str, body: dict[str, Any]) -> dict[str, Any]:
        address = f"{self._server.listening_address}/{place}"
        request = urllib.request.Request(
            address, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            content: dict[str, Any] = json.loads(answer.read())
        return content
