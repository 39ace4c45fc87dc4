"""The secret that a request for data must carry: printed once in the address, then kept by the browser as a cookie.

Another account of the same machine can reach the server's port, so that to come from this machine proves nothing.
"""

from __future__ import annotations

import secrets
from urllib.parse import quote, unquote

from starlette.datastructures import Headers, QueryParams

IN_ADDRESS = "token"
"""The address's query parameter that holds it."""
COOKIE_DAYS = 30


class AccessToken:
    """A token, and the requests that know it. Each start of a server has a new one.

    Args:
        value: 32 characters from the system's source of randomness unless given.
    """

    def __init__(self, value: str | None = None) -> None:
        self.value = value or secrets.token_urlsafe(24)

    def is_known_to(self, headers: Headers) -> bool:
        """Whether a request carries it, as a cookie or as ``Authorization: Bearer``."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is(given.strip()):
            return True
        wanted = cookie_name(headers.get("host", ""))
        pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
        return any(self._is(unquote(value)) for name, _, value in pairs if name == wanted)

    def is_in(self, query: bytes) -> bool:
        """Whether the query of a printed address holds it."""
        return self._is(QueryParams(query).get(IN_ADDRESS, ""))

    def cookie(self, headers: Headers) -> str:
        """The value of ``Set-Cookie`` that has the browser carry it from now on."""
        name, seconds = cookie_name(headers.get("host", "")), COOKIE_DAYS * 24 * 3600
        return f"{name}={quote(self.value)}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict"

    def address(self, host: str, port: int) -> str:
        """The address to print."""
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}/?{IN_ADDRESS}={quote(self.value)}"

    def _is(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self.value.encode())


def cookie_name(host: str) -> str:
    """The cookie's name for a ``Host`` header: browsers give all ports of a host the same cookies."""
    _, separator, port = host.rpartition(":")
    return f"etude-{port}" if separator and port.isdecimal() else "etude-80"
