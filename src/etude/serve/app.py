"""The studio over HTTP: the page, the runs' files, and a way to the worker. It needs no torch."""

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
from etude.serve.access_token import AccessToken
from etude.serve.facts import facts_of, run_lines
from etude.serve.guard import LOCAL, Guard
from etude.serve.request import Asked
from etude.serve.source import source_of
from etude.serve.verdicts import Doctor, verdict_values
from etude.serve.worker_link import WorkerLink
from etude.train.control import Control
from etude.untrusted import inside, refuse_links_out

T = TypeVar("T")
PAGE = Path(__file__).parent / "page"
BETWEEN_LOOKS = 0.5
"""Seconds between two looks whether a client is still there."""
NO_PAGE = (
    "This installation of Etude has no page (it was made with ETUDE_STUDIO=skip).\n"
    "Install it again without that, with Node on the PATH or with access to PyPI: pip install -e .\n"
)


def make_app(
    runs: Path, token: AccessToken, *, hosts: Sequence[str] = LOCAL, control: bool = True
) -> Starlette:
    """The application for the runs of a folder.

    Args:
        runs: the folder.
        token: what every request for data must carry.
        hosts: names by which the server may be called.
        control: whether the page may pause a training, fork a run, and do all else that writes.
    """
    tensors = TemporaryDirectory(prefix="etude-studio-")
    link = WorkerLink(runs, Path(tensors.name))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await link.end()
        tensors.cleanup()

    handlers = Handlers(runs, Path(tensors.name), link, control)
    routes = [
        Route("/api/runs", handlers.runs_there),
        Route("/api/runs/{name}", handlers.facts),
        Route("/api/runs/{name}/rows", handlers.rows),
        Route("/api/runs/{name}/control", handlers.control, methods=["POST"]),
        Route("/api/runs/{name}/abilities", handlers.abilities),
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
    errors: Any = {EtudeError: refused, ClientDisconnect: nobody_reads}
    return Starlette(routes=routes, middleware=middleware, lifespan=lifespan, exception_handlers=errors)


async def refused(request: Request, error: Exception) -> Response:
    """A mistake is one line."""
    return JSONResponse({"error": str(error)}, 404 if isinstance(error, InputError) else 500)


async def nobody_reads(request: Request, error: Exception) -> Response:
    """What ends a request whose client left before it was whole; it is not sent."""
    return Response(status_code=400)


def forbidden(words: str) -> Response:
    return JSONResponse({"error": words}, 403)


class Handlers:
    """What is answered to each request."""

    def __init__(self, runs: Path, files: Path, link: WorkerLink, may_control: bool) -> None:
        self.runs, self.files, self.link, self.may_control = runs, files, link, may_control
        self._doctor = Doctor()

    def run(self, request: Request) -> Path:
        """The folder of the run that is meant.

        Raises:
            InputError: there is none of that name.
        """
        return Asked({"run": request.path_params["name"]}).run(self.runs)

    async def runs_there(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(run_lines, self.runs))

    async def facts(self, request: Request) -> Response:
        return plain_json(await run_in_threadpool(facts_of, self.run(request), self.may_control))

    async def rows(self, request: Request) -> Response:
        """What is new in the logs behind the offsets in ``from``."""
        path = self.run(request)
        refuse_links_out(path)
        try:
            first, second = (int(offset) for offset in request.query_params.get("from", "0,0").split(","))
        except ValueError:
            raise InputError("'from' is two offsets, such as 0,0") from None
        metrics = await run_in_threadpool(read_from, path / "metrics.jsonl", max(0, first))
        samples = await run_in_threadpool(read_from, path / "samples.jsonl", max(0, second))
        if metrics.reset or samples.reset:  # both from the beginning, for they belong together
            metrics = await run_in_threadpool(read_from, path / "metrics.jsonl", 0)
            samples = await run_in_threadpool(read_from, path / "samples.jsonl", 0)
        reset = first > 0 and (metrics.offset < first or samples.offset < second)
        head = {
            "reset": reset,
            "cursor": f"{metrics.offset},{samples.offset}",
            "more": metrics.more or samples.more,
            "every": metrics.every,
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
                "this page may not control the training: only who started it may, on its own machine"
            )
        if facts["state"] != "running":
            raise InputError("nothing is being trained there")
        Control(path).request(Asked(await body_of(request)).text("action"))
        return JSONResponse({})

    async def abilities(self, request: Request) -> Response:
        from etude.serve.abilities import abilities_of  # needs numpy, which the server begins without

        path = self.run(request)
        await run_in_threadpool(refuse_links_out, path)
        return plain_json(await run_in_threadpool(abilities_of, path))

    async def doctor(self, request: Request) -> Response:
        """The doctor's verdicts. It begins a process, and so it is no GET."""
        path = self.run(request)
        await body_of(request)
        await run_in_threadpool(refuse_links_out, path)
        verdicts = await unless_gone(request, self._doctor.verdicts(path))
        return plain_json([verdict_values(verdict) for verdict in verdicts])

    async def ask(self, request: Request) -> Response:
        question = await body_of(request)
        asked = Asked(question)
        asked.run(self.runs)
        if asked.writes and not self.may_control:
            return forbidden(
                "this page may look and not write: only who started the studio may, on its own machine"
            )

        async def lines() -> AsyncIterator[bytes]:
            said = self.link.ask(question)
            try:
                async for one in said:
                    yield json.dumps(one).encode() + b"\n"
            finally:
                await said.aclose()  # type: ignore[attr-defined]

        return StreamingResponse(
            lines(), media_type="application/x-ndjson", headers={"Content-Encoding": "identity"}
        )

    async def tensors(self, request: Request) -> Response:
        """A file of tensors; the page asks for parts of it by Range."""
        file = inside(self.files, f"{request.path_params['key']}.safetensors")
        if not file.is_file():
            raise InputError("these tensors are gone: ask again")
        return FileResponse(
            file, media_type="application/octet-stream", headers={"Content-Encoding": "identity"}
        )

    async def source(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(source_of, request.query_params.get("of", "")))


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled when the client leaves.

    Raises:
        ClientDisconnect: it left.
    """
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=BETWEEN_LOOKS))[0]:
            if await request.is_disconnected():
                raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()


async def body_of(request: Request) -> Any:
    """The JSON value that was sent.

    Raises:
        InputError: it is none.
        ClientDisconnect: the client left before its end.
    """
    try:
        return await request.json()
    except (ValueError, RecursionError, UnicodeDecodeError):
        raise InputError("that is no JSON") from None


def plain_json(value: Any) -> Response:
    """JSON with null for numbers that it has not."""
    return JSONResponse(json_safe(value))
