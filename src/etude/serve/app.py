"""The studio over HTTP: the page, the files of runs, and a link to the worker. Needs no torch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from etude.errors import EtudeError, InputError
from etude.files import json_safe
from etude.run.follow import read_from
from etude.run.published_history import PublishedHistory
from etude.serve.access_token import AccessToken
from etude.serve.collection import Collection
from etude.serve.facts import facts_of
from etude.serve.guard import LOCAL, Guard
from etude.serve.model_facts import facts_of_published, lines_of, no_rows
from etude.serve.request import Question
from etude.serve.source_code import source_code_of
from etude.serve.verdicts import Doctor, verdict_values
from etude.serve.worker_link import WorkerLink
from etude.train.control import Control
from etude.untrusted import inside, refuse_links_out

T = TypeVar("T")
PAGE = Path(__file__).parent / "page"
POLL_SECONDS = 0.5
"""Seconds between two checks whether a client is still connected."""
NO_PAGE = (
    "This installation of Etude has no page (it was built with ETUDE_STUDIO=skip).\n"
    "Install it without that, with Node on the PATH or with access to PyPI: pip install -e .\n"
)


def make_app(
    shown: Collection | Path, token: AccessToken, *, hosts: Sequence[str] = LOCAL, control: bool = True
) -> Starlette:
    """Return the application for the runs and models of a folder, or of a collection.

    Args:
        shown: the folder or the collection.
        token: what every request for data must carry.
        hosts: names under which the server may be called.
        control: whether the page may write: pause a training run, fork a run, and so on.
    """
    tensors = TemporaryDirectory(prefix="etude-studio-")
    collection = shown if isinstance(shown, Collection) else Collection(shown)
    link = WorkerLink(collection, Path(tensors.name))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await link.end()
        tensors.cleanup()

    handlers = Handlers(collection, Path(tensors.name), link, control)
    routes = [
        Route("/api/runs", handlers.list_runs),
        Route("/api/runs/{name}", handlers.facts),
        Route("/api/runs/{name}/rows", handlers.rows),
        Route("/api/runs/{name}/control", handlers.control, methods=["POST"]),
        Route("/api/runs/{name}/abilities", handlers.abilities),
        Route("/api/runs/{name}/tuning", handlers.tuning),
        Route("/api/runs/{name}/doctor", handlers.doctor, methods=["POST"]),
        Route("/api/ask", handlers.ask, methods=["POST"]),
        Route("/api/tensors/{key}", handlers.tensors),
        Route("/api/source", handlers.source),
        Mount("/", StaticFiles(directory=PAGE, html=True))
        if (PAGE / "index.html").is_file()
        else Route("/", lambda request: PlainTextResponse(NO_PAGE, 503)),
    ]
    middleware = [
        Middleware(Guard, token=token, hosts=hosts),
        Middleware(GZipMiddleware, minimum_size=2_000, compresslevel=4),
    ]
    errors: Any = {EtudeError: refused, ClientDisconnect: client_left}
    return Starlette(routes=routes, middleware=middleware, lifespan=lifespan, exception_handlers=errors)


async def refused(request: Request, error: Exception) -> Response:
    """Answer a user's mistake with one line."""
    return JSONResponse({"error": str(error)}, 404 if isinstance(error, InputError) else 500)


async def client_left(request: Request, error: Exception) -> Response:
    """Answer a request whose client left before its body was complete. The response reaches no client."""
    return Response(status_code=400)


def forbidden(reason: str) -> Response:
    """Return a refusal."""
    return JSONResponse({"error": reason}, 403)


class Handlers:
    """One handler per route."""

    def __init__(self, shown: Collection, files: Path, link: WorkerLink, may_control: bool) -> None:
        self.shown, self.files, self.link, self.may_control = shown, files, link, may_control
        self._doctor = Doctor()

    def run(self, request: Request) -> Path:
        """Return the folder of the requested run.

        Raises:
            InputError: there is no run of that name.
        """
        return Question({"run": request.path_params["name"]}).run(self.shown)

    def model(self, request: Request) -> Path | None:
        """Return the folder of the requested model; None if a run has that name.

        Raises:
            InputError: there is neither.
        """
        path = self.shown.path(request.path_params["name"])
        return None if (path / "run.toml").is_file() else path

    async def list_runs(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(lines_of, self.shown))

    async def facts(self, request: Request) -> Response:
        if (model := self.model(request)) is not None:
            name = request.path_params["name"]
            return json_response(await run_in_threadpool(facts_of_published, name, model))
        return json_response(await run_in_threadpool(facts_of, self.run(request), self.may_control))

    async def rows(self, request: Request) -> Response:
        """Return what the logs contain after the offsets in ``from``."""
        if self.model(request) is not None:
            return JSONResponse(no_rows())
        path = self.run(request)
        refuse_links_out(path)
        try:
            first, second = (int(offset) for offset in request.query_params.get("from", "0,0").split(","))
        except ValueError:
            raise InputError("'from' takes two offsets, such as 0,0") from None
        metrics = await run_in_threadpool(read_from, path / "metrics.jsonl", max(0, first))
        samples = await run_in_threadpool(read_from, path / "samples.jsonl", max(0, second))
        if metrics.reset or samples.reset:  # reread both: they belong together
            metrics = await run_in_threadpool(read_from, path / "metrics.jsonl", 0)
            samples = await run_in_threadpool(read_from, path / "samples.jsonl", 0)
        reset = first > 0 and (metrics.offset < first or samples.offset < second)
        head = {
            "reset": reset,
            "cursor": f"{metrics.offset},{samples.offset}",
            "more": metrics.more or samples.more,
            "every": metrics.stride,
        }
        body = json.dumps(head).encode()[:-1] + b', "metrics": [' + b",".join(metrics.lines)
        body += b'], "samples": [' + b",".join(samples.lines) + b"]}"
        return Response(body, media_type="application/json")

    async def control(self, request: Request) -> Response:
        path = self.run(request)
        refuse_links_out(path)
        facts = await run_in_threadpool(facts_of, path, self.may_control)
        if not facts["control"]:
            return forbidden(
                "this page may not control the training: only the user who started it can, on its own machine"
            )
        if facts["state"] != "running":
            raise InputError("this run is not training")
        Control(path).request(Question(await body_of(request)).text("action"))
        return JSONResponse({})

    async def abilities(self, request: Request) -> Response:
        # Imports numpy, which the server starts without.
        from etude.serve.abilities import abilities_of, abilities_of_published

        model = self.model(request)
        if model is not None and (history := PublishedHistory.at(model)) is not None:
            return json_response(await run_in_threadpool(abilities_of_published, history))
        path = self.run(request)
        await run_in_threadpool(refuse_links_out, path)
        return json_response(await run_in_threadpool(abilities_of, path))

    async def tuning(self, request: Request) -> Response:
        from etude.serve.tuning import tuning_of  # imports numpy, which the server starts without

        if self.model(request) is not None:  # versions of a published model, of which Etude tuned none
            return json_response([])
        path = self.run(request)
        await run_in_threadpool(refuse_links_out, path)
        return json_response(await run_in_threadpool(tuning_of, path))

    async def doctor(self, request: Request) -> Response:
        """Return the doctor's verdicts. POST, since it starts a process."""
        path = self.shown.path(request.path_params["name"])
        await body_of(request)
        if (path / "run.toml").is_file():
            await run_in_threadpool(refuse_links_out, path)
        elif (history := await run_in_threadpool(PublishedHistory.at, path)) is not None:
            path = history.folder_of(history.last)
        verdicts = await while_connected(request, self._doctor.verdicts(path))
        return json_response([verdict_values(verdict) for verdict in verdicts])

    async def ask(self, request: Request) -> Response:
        body = await body_of(request)
        question = Question(body)
        question.place(self.shown)
        if question.writes and not self.may_control:
            return forbidden(
                "this page is read-only: only the user who started the studio may write, on its own machine"
            )

        async def lines() -> AsyncIterator[bytes]:
            messages = self.link.ask(body)
            try:
                async for message in messages:
                    yield json.dumps(message).encode() + b"\n"
            finally:
                await messages.aclose()  # type: ignore[attr-defined]

        return StreamingResponse(
            lines(), media_type="application/x-ndjson", headers={"Content-Encoding": "identity"}
        )

    async def tensors(self, request: Request) -> Response:
        """Return a file of tensors, of which the page requests parts by Range."""
        file = inside(self.files, f"{request.path_params['key']}.safetensors")
        if not file.is_file():
            raise InputError("these tensors are no longer stored: request them again")
        return FileResponse(
            file, media_type="application/octet-stream", headers={"Content-Encoding": "identity"}
        )

    async def source(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(source_code_of, request.query_params.get("of", "")))


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``work``, and cancel it when the client leaves.

    Raises:
        ClientDisconnect: the client left.
    """
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=POLL_SECONDS))[0]:
            if await request.is_disconnected():
                raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()


async def body_of(request: Request) -> Any:
    """Return the JSON value of a request.

    Raises:
        InputError: the body is not JSON.
        ClientDisconnect: the client left before its end.
    """
    try:
        return await request.json()
    except (ValueError, RecursionError, UnicodeDecodeError):
        raise InputError("the request body is not JSON") from None


def json_response(value: Any) -> Response:
    """Return JSON, with null for NaN and infinity."""
    return JSONResponse(json_safe(value))
