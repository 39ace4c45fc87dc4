"""The secret that every request for data must carry: printed once in the address, then kept as a browser cookie.

Other accounts on the same machine can reach the server's port, so a local connection proves nothing.
"""

from __future__ import annotations

import secrets
from urllib.parse import quote, unquote

from starlette.datastructures import Headers, QueryParams

IN_ADDRESS = "token"
"""The query parameter of the address that holds the token."""
COOKIE_DAYS = 30


class AccessToken:
    """A token, and the check that a request carries it. Each start of a server makes a new one.

    Args:
        value: by default 32 characters from the system's source of randomness.
    """

    def __init__(self, value: str | None = None) -> None:
        self.value = value or secrets.token_urlsafe(24)

    def is_known_to(self, headers: Headers) -> bool:
        """Return whether a request carries the token, as a cookie or as ``Authorization: Bearer``."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is(given.strip()):
            return True
        expected_name = cookie_name(headers.get("host", ""))
        pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
        return any(self._is(unquote(value)) for name, _, value in pairs if name == expected_name)

    def is_in(self, query: bytes) -> bool:
        """Return whether the query of an address holds the token."""
        return self._is(QueryParams(query).get(IN_ADDRESS, ""))

    def cookie(self, headers: Headers) -> str:
        """Return the value of ``Set-Cookie`` that makes the browser carry the token from now on."""
        name, seconds = cookie_name(headers.get("host", "")), COOKIE_DAYS * 24 * 3600
        return f"{name}={quote(self.value)}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict"

    def address(self, host: str, port: int) -> str:
        """Return the address to print."""
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}/?{IN_ADDRESS}={quote(self.value)}"

    def _is(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self.value.encode())


def cookie_name(host: str) -> str:
    """Return the cookie's name for a ``Host`` header. It contains the port: browsers share cookies among all ports of a
    host."""
    _, separator, port = host.rpartition(":")
    return f"etude-{port}" if separator and port.isdecimal() else "etude-80"
