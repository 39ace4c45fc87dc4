"""Shared by tests of the studio's server: its application with a known token, and a real server on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit

from pydantic import ConfigDict, TypeAdapter
from starlette.testclient import TestClient

from etude.files import json_safe
from etude.serve.access_token import AccessToken
from etude.serve.app import make_app

TOKEN = AccessToken("the-token-of-a-test")
LOCAL_URL = "http://127.0.0.1:8123"


def client_of(runs: Path, *, knows: bool = True, base_url: str = LOCAL_URL, **options: Any) -> TestClient:
    """Return a client of the studio for a folder of runs; by default it knows the token."""
    headers = {"Authorization": f"Bearer {TOKEN.value}"} if knows else {}
    return TestClient(make_app(runs, TOKEN, **options), base_url=base_url, headers=headers)


def require_type(kind: Any, value: Any, *, more: bool = False) -> None:
    """Raise ValidationError unless a value is, in JSON, of a TypedDict; with ``more`` other keys are allowed."""
    config = ConfigDict(extra="ignore" if more else "forbid")
    adapter: TypeAdapter[Any] = TypeAdapter(list[kind], config=config)
    adapter.validate_json(json.dumps([json_safe(value)], allow_nan=False), strict=True)


@dataclass
class Served:
    """A server process, its printed address, and the parts of that."""

    process: subprocess.Popen[str]
    address: str
    log: IO[str]

    @property
    def port(self) -> int:
        port = urlsplit(self.address).port
        assert port is not None
        return port

    @property
    def token(self) -> str:
        return parse_qs(urlsplit(self.address).query)["token"][0]

    def error_output(self) -> str:
        """Return what it wrote to standard error."""
        self.log.seek(0)
        return self.log.read()


@contextmanager
def served(runs: Path, log: Path, cache: Path | None = None) -> Iterator[Served]:
    """Run a real server for a folder of runs while the block lasts."""
    environment = dict(os.environ) if cache is None else {**os.environ, "ETUDE_CACHE": str(cache)}
    with log.open("w+") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "etude.serve", str(runs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=written,
            text=True,
            env=environment,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address = json.loads(process.stdout.readline())["address"]
            yield Served(process, address, written)
        finally:
            process.stdin.close()
            process.wait(20)
            process.stdout.close()
