"""Admit requests of the studio's own page, and of clients that know the token; refuse all others."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from etude.serve.access_token import AccessToken

LOCAL = ("127.0.0.1", "localhost", "[::1]")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MOST_BODY = 2**20
"""Bytes of a request's body."""
KNOWN = "etude.token_known"
"""The key of a scope under which the guard stores whether the request carried the token."""


def is_own_host(host: str, names: Collection[str]) -> bool:
    """Return whether a ``Host``, with or without a port, is one of the server's names."""
    return host in names or host.rsplit(":", 1)[0] in names


def is_same_origin(origin: str, host: str) -> bool:
    """Return whether an ``Origin`` is the server's own address."""
    return origin.split("://", 1)[-1] == host


class TooLong(Exception):
    """The body has more than ``MOST_BODY`` bytes."""


class Guard:
    """Refuses requests that come from neither the page nor a holder of the token, and makes browsers do the same.

    A foreign ``Host`` comes from a page of another site whose name resolves to this machine (DNS rebinding). A foreign
    ``Origin``, or a ``Sec-Fetch-Site`` other than same-origin, comes from a page of another site, or of another port of
    this machine. The page's own files are public; everything below /api needs the token.

    Args:
        app: the application to guard.
        token: what a request for data must carry.
        hosts: names under which the server may be called.
    """

    def __init__(self, app: ASGIApp, token: AccessToken, hosts: Sequence[str] = LOCAL) -> None:
        self.app, self.token, self.hosts = app, token, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = _with_headers(scope, send)
        refusal = self._refusal(scope)
        if refusal is not None:
            await _error(*refusal)(scope, receive, send)
        elif self._is_printed_address(scope):
            await self._exchange(scope)(scope, receive, send)
        else:
            await self._bounded(scope, receive, send)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count the bytes of its body: Content-Length may be missing or wrong."""
        size, begun = 0, False

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MOST_BODY:
                raise TooLong
            return message

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except TooLong:
            if not begun:
                await _error(413, "the request body is too long")(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and message of a refusal; None to admit the request."""
        headers, data = Headers(scope=scope), scope["path"].startswith("/api")
        host = headers.get("host", "")
        if not is_own_host(host, self.hosts):
            return 400, "the studio does not serve this host: open the printed address"
        origin = headers.get("origin")
        if origin is not None and not is_same_origin(origin, host):
            return 403, "this request does not come from the studio's page"
        # Browsers omit this header unless the address is https or local; other clients omit it always. A link on
        # another site may lead to the page, which is public; refuse everything else from there.
        site = headers.get("sec-fetch-site", "same-origin")
        followed = not data and headers.get("sec-fetch-mode") == "navigate"
        if site not in ("same-origin", "none") and not followed:
            return 403, "this request does not come from the studio's page"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "the studio accepts GET, HEAD and POST only"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > MOST_BODY:
            return 413, "the request body is too long"
        if scope["method"] == "POST" and headers.get("content-type", "").split(";")[0] != "application/json":
            return 415, "the studio accepts JSON only"
        scope[KNOWN] = self.token.is_known_to(headers)
        if data and not scope[KNOWN]:
            return (
                401,
                "the token is missing: open the whole address that `etude studio` or `etude train` printed",
            )
        return None

    def _is_printed_address(self, scope: Scope) -> bool:
        return (
            scope["method"] in ("GET", "HEAD")
            and not scope["path"].startswith("/api")
            and self.token.is_in(scope["query_string"])
        )

    def _exchange(self, scope: Scope) -> Response:
        """Exchange the token in the address for a cookie, so that it leaves the address bar and the history."""
        scope[KNOWN] = True
        cookie = self.token.cookie(Headers(scope=scope))
        # Relative, so that it works behind a proxy's prefix. The browser keeps the part after #.
        return Response(
            status_code=303, headers={"Location": "./", "Set-Cookie": cookie, "Cache-Control": "no-store"}
        )


def _error(status: int, message: str) -> Response:
    headers = {"Connection": "close"} if status == 413 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": message}, status, headers)


def _with_headers(scope: Scope, send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Content-Security-Policy"] = POLICY
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            headers["Cross-Origin-Opener-Policy"] = "same-origin"
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            if scope["path"].startswith("/api"):
                headers["Cache-Control"] = "no-store"
        await send(message)

    return sent
