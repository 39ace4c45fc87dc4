"""The server: its socket, the hosts it serves, and when it ends."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.errors import EtudeError
from etude.serve.access_token import AccessToken
from etude.serve.collection import Collection
from etude.serve.guard import KNOWN, LOCAL
from etude.serve.printed_address import forget_address, keep_address

if TYPE_CHECKING:
    import uvicorn

PORTS = range(8123, 8143)
POLL_SECONDS = 1.0
"""Seconds between two checks whether the parent process is alive."""


def serve(
    shown: Collection | Path,
    host: str,
    port: int,
    *,
    announce: Callable[[str], None],
    beside: Beside | None = None,
) -> None:
    """Serve runs and models until it is interrupted, or until the process it runs ``beside`` has ended.

    ``announce`` receives the address, with the token that every request for data needs, since other accounts of this
    machine can reach the port. A server for other machines does not let the page control training.

    Raises:
        EtudeError: the port is taken, or the host is not this machine's.
    """
    import uvicorn

    from etude.serve.app import make_app

    bound = listening(host, port)
    local = is_local(host)
    token = AccessToken()
    hosts = served_names(host)
    app = LastRequest(make_app(shown, token, hosts=hosts, control=local))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    address = token.address(name, bound.getsockname()[1])
    keep_address(address)
    announce(address)
    if beside is not None:
        threading.Thread(target=end_with, args=(beside, server, app), daemon=True).start()
    try:
        server.run(sockets=[bound])
    finally:
        forget_address(address)


@dataclass(frozen=True)
class Beside:
    """The process that a server runs beside; it holds the other end of standard input.

    Attributes:
        stay: seconds that the server outlives it, counted from the last request of an open page.
        on_stay: called when the server stays.
        parent: its process id, if the server is its child.
    """

    stay: float = 0.0
    on_stay: Callable[[], None] = lambda: None
    parent: int | None = None


class LastRequest:
    """An application, and the time of its last request with a known token (None before the first)."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.at: float | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def noted(message: Any) -> None:
            if scope.get(KNOWN):
                self.at = time.monotonic()
            await send(message)

        await self.app(scope, receive, noted)


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens at ``port``; for 0, at the first free port of ``PORTS``.

    Raises:
        EtudeError: the port is taken, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    problem: OSError | None = None
    for candidate in [port] if port else [*PORTS, 0]:
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, candidate))
            bound.listen(128)
            return bound
        except (OSError, OverflowError) as error:
            problem = error if isinstance(error, OSError) else OSError(error)
            bound.close()
    raise EtudeError(f"cannot serve at {host}, port {port}: {problem}; choose another --host or --port")


def is_local(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on ``host``."""
    return host in ("127.0.0.1", "localhost", "::1")


def served_names(host: str) -> tuple[str, ...]:
    """Return the names under which a server that listens on ``host`` may be called."""
    return LOCAL if is_local(host) else (*LOCAL, host, *_own_names())


def _own_names() -> list[str]:
    """Return the names and addresses under which other machines reach this one."""
    try:
        addresses = socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        return [socket.gethostname()]
    return [socket.gethostname(), *(str(address[4][0]) for address in addresses)]


def end_with(beside: Beside, server: uvicorn.Server, app: LastRequest) -> None:
    """End the server after the process it runs beside; an open page keeps it for a while."""
    try:
        wait_for_end(beside.parent)
        if beside.stay and app.at is not None:
            with suppress(OSError):  # a killed process no longer reads this
                beside.on_stay()
            while time.monotonic() - app.at < beside.stay:
                time.sleep(0.2)
    finally:
        server.should_exit = True


def wait_for_end(parent: int | None) -> None:
    """Wait until standard input ends, or until this process is no longer a child of ``parent``.

    Standard input may stay open longer: a process that the parent forked may hold a copy of the other end.
    """
    ended = threading.Event()
    threading.Thread(target=_read_to_end, args=(ended,), daemon=True).start()
    while not ended.wait(POLL_SECONDS):
        if parent is not None and os.getppid() != parent:
            return


def _read_to_end(ended: threading.Event) -> None:
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    ended.set()
