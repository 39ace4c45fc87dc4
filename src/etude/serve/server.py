"""The server: where it listens, who may call it, and when it ends."""

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
from etude.serve.guard import KNOWN, LOCAL
from etude.serve.printed_address import forget_address, keep_address

if TYPE_CHECKING:
    import uvicorn

PORTS = range(8123, 8143)
BETWEEN_LOOKS = 1.0
"""Seconds between two looks at whether the parent process is there."""


def serve(
    runs: Path, host: str, port: int, *, announce: Callable[[str], None], beside: Beside | None = None
) -> None:
    """Serve the runs of a folder until somebody interrupts it, or until what it runs ``beside`` has ended.

    ``announce`` is given the address, with the token that every request for data needs: other accounts of this machine
    reach the port as well. Where other machines are served, a training cannot be controlled from the page.

    Raises:
        EtudeError: the port is taken, or the host is not this machine's.
    """
    import uvicorn

    from etude.serve.app import make_app

    bound = listening(host, port)
    local = host in ("127.0.0.1", "localhost", "::1")
    token = AccessToken()
    hosts = LOCAL if local else (*LOCAL, host, *own_names())
    app = Looked(make_app(runs, token, hosts=hosts, control=local))
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
    """What a server runs beside: a process that holds the other end of standard input.

    stay: seconds that it stays behind that process for whoever looks, from the last look on; told: called when it
    stays; parent: the process's number, where the server is its child.
    """

    stay: float = 0.0
    told: Callable[[], None] = lambda: None
    parent: int | None = None


class Looked:
    """An application, and when a request that knew the token last came to it; None where none ever did."""

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
    """A socket that listens at ``port``, or for 0 at the first free one of ``PORTS``.

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


def own_names() -> list[str]:
    """Names and addresses of this machine, as others write them."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        return [socket.gethostname()]
    return [socket.gethostname(), *(str(one[4][0]) for one in found)]


def end_with(beside: Beside, server: uvicorn.Server, app: Looked) -> None:
    """End the server once the process that it runs beside has ended. Whoever looks keeps it for a while."""
    try:
        wait_for_end(beside.parent)
        if beside.stay and app.at is not None:
            with suppress(OSError):  # a process that was killed reads no longer that the page stays
                beside.told()
            while time.monotonic() - app.at < beside.stay:
                time.sleep(0.2)
    finally:
        server.should_exit = True


def wait_for_end(parent: int | None) -> None:
    """Wait until standard input ends, or until this process is no longer a child of ``parent``.

    The end of input comes at once, but not while a process that the parent forked holds a copy of the other end.
    """
    ended = threading.Event()
    threading.Thread(target=_read_to_end, args=(ended,), daemon=True).start()
    while not ended.wait(BETWEEN_LOOKS):
        if parent is not None and os.getppid() != parent:
            return


def _read_to_end(ended: threading.Event) -> None:
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    ended.set()
