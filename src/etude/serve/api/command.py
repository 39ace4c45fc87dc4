"""``etude serve``: load the models, print where they are served, and serve them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from etude.errors import InputError
from etude.serve.api.app import make_api
from etude.serve.api.models import Limits, ServedModels
from etude.serve.server import is_local, listening, served_names

KEY_VARIABLE = "ETUDE_API_KEY"


def serve_models(
    sources: Sequence[str],
    *,
    steps: Sequence[int],
    host: str,
    port: int,
    limits: Limits,
    most_waiting: int,
    key: str | None,
    origins: Sequence[str],
    studio: str | None,
) -> None:
    """Serve models until Ctrl-C.

    Raises:
        InputError: no model, too little memory, or other machines may call without a key.
        EtudeError: the port is taken.
    """
    import uvicorn

    key = key or os.environ.get(KEY_VARIABLE) or None
    if not is_local(host) and key is None:
        raise InputError(f"other machines can reach {host}: set a key with --api-key or {KEY_VARIABLE}")
    bound = listening(host, port)
    models = ServedModels(list(sources), list(steps), limits)
    for name in models.names():
        served = models.current(name)
        size = models.predicted_bytes(served.batch.model, served.context)
        print(
            f"serve: {name} ({served.version}), {limits.rows} rows of {served.context:,} tokens, "
            f"{size / 2**20:,.0f} MiB besides the weights",
            flush=True,
        )
    shown = f"[{host}]" if ":" in host else host
    print(f"serve: http://{shown}:{bound.getsockname()[1]}/v1  (Ctrl-C ends it)", flush=True)
    app = make_api(
        models,
        key=key,
        hosts=served_names(host),
        origins=origins,
        most_waiting=most_waiting,
        studio=studio,
    )
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[bound])
