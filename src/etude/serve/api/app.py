"""The application: routes of the API, and who may call them."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from etude.errors import EtudeError, InputError
from etude.serve.api.answer import chat_answer, chat_chunks, completion_answer, completion_chunks
from etude.serve.api.fields import Fields
from etude.serve.api.models import Served, ServedModels
from etude.serve.api.problem import Problem
from etude.serve.api.recent import RecentAnswers
from etude.serve.api.requests import Asked, chat_request, completion_request, conversation_ids
from etude.serve.api.scheduler import Scheduler
from etude.serve.guard import LOCAL, is_own_host, is_same_origin

MOST_BODY = 16 * 2**20
"""Bytes of a request's body: token ids of many prompts take some."""


class ApiGuard:
    """Refuses pages of other sites, other hosts' names (DNS rebinding), and callers without the key.

    Args:
        key: what every request but /health must carry as ``Authorization: Bearer``; None: nothing.
        hosts: names under which the server may be called.
        origins: pages that may call it from a browser.
    """

    def __init__(self, app: ASGIApp, key: str | None, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self.app, self.key, self.hosts, self.origins = app, key, frozenset(hosts), frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        problem = self._problem(scope)
        await (self.app if problem is None else problem.response())(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not is_own_host(host, self.hosts):
            return Problem("this server does not serve this host: use the printed address", 400)
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and not is_same_origin(origin, host):
            return Problem("pages of this origin may not call this server: start it with --allow-origin", 403)
        if self.key is None or scope["path"] == "/health":
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        known = secrets.compare_digest(given.strip().encode("utf-8", "replace"), self.key.encode())
        if scheme.lower() == "bearer" and known:
            return None
        return Problem("the API key is missing or wrong", 401, code="invalid_api_key")


class Handlers:
    """One handler per route."""

    def __init__(self, models: ServedModels, scheduler: Scheduler, recent: RecentAnswers) -> None:
        self.models, self.scheduler, self.recent = models, scheduler, recent

    async def health(self, request: Request) -> Response:
        state: dict[str, Any] = {"status": "ok", "models": self.models.names(), **self.scheduler.state()}
        if self.models.problems:
            state["problems"] = self.models.problems
        return JSONResponse(state)

    async def list_models(self, request: Request) -> Response:
        data = [await self._model(name) for name in self.models.names()]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        return JSONResponse(await self._model(request.path_params["name"]))

    async def _model(self, name: str) -> dict[str, Any]:
        served = await run_in_threadpool(self.models.current, name)
        return {
            "id": name,
            "object": "model",
            "created": served.created,
            "owned_by": "etude",
            "max_model_len": served.context,
            "version": served.version,
        }

    async def chat(self, request: Request) -> Response:
        fields, served = await self._opened(request)
        asked = await run_in_threadpool(chat_request, fields, served)
        return await self._answered(request, asked, served, chat_answer, chat_chunks)

    async def completions(self, request: Request) -> Response:
        fields, served = await self._opened(request)
        asked = await run_in_threadpool(completion_request, fields, served)
        return await self._answered(request, asked, served, completion_answer, completion_chunks)

    async def embeddings(self, request: Request) -> Response:
        raise Problem(
            "the models of this server predict tokens and were not trained to embed texts: "
            "use an embedding model for /v1/embeddings",
            code="unsupported_endpoint",
        )

    async def tokenize(self, request: Request) -> Response:
        fields, served = await self._opened(request)
        messages = fields.take("messages")
        if messages is not None:
            ids = await run_in_threadpool(conversation_ids, messages, served)
        else:
            ids = served.tokenizer.encode(fields.text("prompt"))
        fields.require_no_more()
        return JSONResponse({"tokens": ids, "count": len(ids), "max_model_len": served.context})

    async def answer(self, request: Request) -> Response:
        return JSONResponse(self.recent.read(request.path_params["id"]))

    async def _opened(self, request: Request) -> tuple[Fields, Served]:
        """Read the body, and find the model that it names."""
        fields = Fields(_parsed(await _body(request)))
        names = self.models.names()
        name = fields.take("model")
        if name is None and len(names) == 1:
            name = names[0]
        if not isinstance(name, str):
            raise Problem(f"model is missing: choose one of {', '.join(names)}", param="model")
        return fields, await run_in_threadpool(self.models.current, name)

    async def _answered(
        self, request: Request, asked: Asked, served: Served, whole: Any, chunks: Any
    ) -> Response:
        call = asked.call(served)
        call.submit(self.scheduler)
        if asked.stream:
            pieces = self._stream(chunks(call, asked), call, asked)
            return StreamingResponse(
                pieces, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
            )
        async for _ in call.events(request.is_disconnected):
            pass
        if any(choice.finish_reason is None for choice in call.choices):
            raise ClientDisconnect
        self.recent.keep(call)
        return JSONResponse(whole(call, asked))

    async def _stream(
        self, chunks: AsyncIterator[dict[str, Any]], call: Any, asked: Asked
    ) -> AsyncIterator[str]:
        try:
            async for chunk in chunks:
                yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
            self.recent.keep(call)
        except Problem as problem:  # the status is already sent
            yield f"data: {json.dumps(problem.body())}\n\n"
        finally:
            for row in call.requests:
                row.cancelled = True
        yield "data: [DONE]\n\n"


async def _body(request: Request) -> bytes:
    size, parts = 0, []
    async for part in request.stream():
        size += len(part)
        if size > MOST_BODY:
            raise Problem(f"the request body has more than {MOST_BODY // 2**20} MiB", 413)
        parts.append(part)
    return b"".join(parts)


def _parsed(body: bytes) -> Any:
    def refused(word: str) -> None:
        raise ValueError(f"{word} is no number of JSON")

    try:
        return json.loads(body, parse_constant=refused)
    except (ValueError, RecursionError):
        raise Problem("the body is not valid JSON", code="invalid_json") from None


async def _refused(request: Request, error: Exception) -> Response:
    """Answer in the shape of the API, whatever is wrong."""
    if isinstance(error, Problem):
        problem = error
    elif isinstance(error, HTTPException):
        problem = Problem(f"{request.method} {request.url.path[:200]}: {error.detail}", error.status_code)
    elif isinstance(error, ClientDisconnect):
        problem = Problem("the client left", 499)
    else:
        problem = Problem(str(error), 400 if isinstance(error, InputError) else 500)
    return problem.response()


def make_api(
    models: ServedModels,
    *,
    key: str | None = None,
    hosts: Sequence[str] = LOCAL,
    origins: Sequence[str] = (),
    most_waiting: int = 256,
    studio: str | None = None,
) -> Starlette:
    """Return the application.

    Args:
        most_waiting: most rows that wait for a place in a batch; more are refused with 429.
        studio: address of a studio that shows the same sources, for links.
    """
    scheduler = Scheduler(most_waiting)
    handlers = Handlers(models, scheduler, RecentAnswers(studio))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        scheduler.start()
        yield
        await asyncio.to_thread(scheduler.end)

    routes = [
        Route("/health", handlers.health),
        Route("/v1/models", handlers.list_models),
        Route("/v1/models/{name:path}", handlers.model),
        Route("/v1/chat/completions", handlers.chat, methods=["POST"]),
        Route("/v1/completions", handlers.completions, methods=["POST"]),
        Route("/v1/embeddings", handlers.embeddings, methods=["POST"]),
        Route("/v1/answers/{id}", handlers.answer),
        Route("/tokenize", handlers.tokenize, methods=["POST"]),
    ]
    errors: Any = dict.fromkeys((Problem, HTTPException, ClientDisconnect, EtudeError), _refused)
    middleware = [Middleware(ApiGuard, key=key, hosts=hosts, origins=origins)]
    if origins:
        from starlette.middleware.cors import CORSMiddleware

        middleware.insert(
            0, Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
        )
    return Starlette(routes=routes, middleware=middleware, lifespan=lifespan, exception_handlers=errors)
