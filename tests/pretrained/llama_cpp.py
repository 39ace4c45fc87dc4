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

    def _token_ids(self, text: str, specials: bool) -> list[int]:
        content = json.dumps({"content": text, "add_special": False, "parse_special": specials}).encode()
        address = f"{self._server.listening_address}/tokenize"
        request = urllib.request.Request(address, content, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            ids: list[int] = json.loads(answer.read())["tokens"]
        return ids
