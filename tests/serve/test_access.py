"""Who may read and write: a client with the token, from the studio's own page; a guest may only read."""

from __future__ import annotations

import http.client
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from etude.serve.access_token import AccessToken
from etude.serve.app import make_app
from etude.serve.printed_address import address_file, forget_address, keep_address, printed_address
from serving import TOKEN, client_of, served
from waiting import PATIENCE
from watched import Watched

COOKIE = {"Cookie": f"etude-8123={TOKEN.value}"}


def data_paths() -> list[str]:
    """Return every path below /api that the application has."""
    paths = [route.path for route in make_app(Path("runs"), TOKEN).routes if isinstance(route, Route)]
    return [path.format(name="llama", key="x") for path in paths if path.startswith("/api")]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_another_account_of_this_machine_reads_and_controls_nothing(studied: Watched, method: str) -> None:
    assert len(data_paths()) >= 9
    headers = {"Content-Type": "application/json"}
    with client_of(studied.path.parent, knows=False) as stranger:
        for path in [*data_paths(), "/api", "/api/nothing"]:
            for attempt in (path, f"{path}?token=", f"{path}?token={TOKEN.value[:-1]}"):
                assert stranger.request(method, attempt, headers=headers).status_code == 401, attempt
        for wrong in ("Bearer", "Bearer x", f"Basic {TOKEN.value}", f"Bearer {TOKEN.value}x", "Bearer \xff"):
            given = {"Content-Type": b"application/json", "Authorization": wrong.encode("latin-1")}
            assert stranger.request(method, "/api/runs", headers=given).status_code == 401, wrong


def test_the_page_itself_is_public(studied: Watched) -> None:
    with client_of(studied.path.parent, knows=False) as stranger:
        assert stranger.get("/").status_code in (200, 503)  # 503 if this installation has no page
        assert stranger.get(f"/?token={TOKEN.value}x").status_code in (200, 503)
        assert not stranger.cookies


def test_the_printed_address_is_exchanged_for_a_cookie(studied: Watched) -> None:
    with client_of(studied.path.parent, knows=False) as client:
        response = client.get(TOKEN.address("127.0.0.1", 8123), follow_redirects=False)
        assert response.status_code == 303
        assert response.headers["location"] == "./"  # without the token; a browser keeps the part after #
        assert response.headers["cache-control"] == "no-store"
        name, *attributes = response.headers["set-cookie"].split("; ")
        assert name == f"etude-8123={TOKEN.value}"
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
        assert client.get("/api/runs").status_code == 200  # the client keeps the cookie
        client.cookies.clear()
        assert client.get("/api/runs").status_code == 401


def test_the_cookie_is_named_by_the_port_that_the_browser_sees(studied: Watched) -> None:
    """Browsers send the cookies of a host to all its ports: two studios must not overwrite each other's."""
    for base, name in (
        ("http://127.0.0.1:8124", "etude-8124"),
        ("http://localhost:9000", "etude-9000"),  # through a tunnel from another machine's 8123
        ("http://[::1]:8125", "etude-8125"),
        ("http://localhost", "etude-80"),
    ):
        with client_of(studied.path.parent, knows=False, base_url=base) as client:
            response = client.get(f"/?token={TOKEN.value}", follow_redirects=False)
            assert response.headers["set-cookie"].startswith(f"{name}=")
            assert (
                client.get("/api/runs", headers={"Cookie": f"a=b; {name}={TOKEN.value}"}).status_code == 200
            )
    with client_of(studied.path.parent, knows=False) as client:
        other = f"etude-8124={TOKEN.value}; etude-8123=stale"
        assert client.get("/api/runs", headers={"Cookie": other}).status_code == 401
        both = f"etude-8124=another; etude-8123={TOKEN.value}"
        assert client.get("/api/runs", headers={"Cookie": both}).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_or_port_is_refused_whatever_its_browser_knows(
    studied: Watched, site: str
) -> None:
    """A GET carries no Origin, and another port of this machine is the same site, which receives Strict cookies."""
    with client_of(studied.path.parent, knows=False) as client:
        for path in data_paths():
            foreign = COOKIE | {"Sec-Fetch-Site": site}
            assert client.get(path, headers=foreign).status_code == 403, path
            navigating = foreign | {"Sec-Fetch-Mode": "navigate"}
            assert client.get(path, headers=navigating).status_code == 403, path
            sent = foreign | {"Content-Type": "application/json"}
            assert client.post(path, headers=sent, content="{}").status_code == 403, path
        for own in ("same-origin", "none"):
            assert client.get("/api/runs", headers=COOKIE | {"Sec-Fetch-Site": own}).status_code == 200
        link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}  # in a mail, in a chat
        assert client.get("/", headers=link).status_code in (200, 503)
        assert client.get("/", headers=link | {"Sec-Fetch-Mode": "no-cors"}).status_code == 403


def test_a_guest_never_writes(studied: Watched, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(studied.path, runs / "llama")
    before = sorted(path.relative_to(runs) for path in runs.rglob("*"))
    fork: dict[str, Any] = {
        "run": "llama",
        "look": "fork",
        "step": 40,
        "name": "theirs",
        "knobs": ["lm_head.weight*1"],
    }
    folder = studied.machine.recorded.run.__class__(runs / "llama")
    with client_of(runs, hosts=("tower",), base_url="http://tower:8123", control=False) as guest:
        assert guest.get("/api/runs").status_code == 200
        facts = guest.get("/api/runs/llama").json()
        assert (facts["control"], facts["fork"]) == (False, False)
        refused = guest.post("/api/ask", json=fork)
        assert refused.status_code == 403
        assert "read-only" in refused.json()["error"]
        folder.write_status("running", 7)
        with folder.locked():
            for action in ("pause", "stop", "save", "one_step", "go_on"):
                sent = guest.post("/api/runs/llama/control", json={"action": action})
                assert sent.status_code == 403
    after = sorted(path.relative_to(runs) for path in runs.rglob("*") if path.name != ".lock")
    assert after == [path for path in before if path.name != ".lock"]
    with client_of(runs) as owner:
        assert owner.get("/api/runs/llama").json()["fork"] is True


def test_every_start_has_another_token(studied: Watched) -> None:
    assert AccessToken().value != AccessToken().value
    assert len(AccessToken().value) >= 32
    assert AccessToken("a b").address("::1", 80) == "http://[::1]:80/?token=a%20b"


def test_a_real_server_on_loopback(studied: Watched, tmp_path: Path) -> None:
    """From the printed address to the data, as a browser does it, and as another account tries."""
    with served(studied.path.parent, tmp_path / "log", studied.cache) as server:

        def get(path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
            connection.request("GET", path, headers=headers)
            return connection.getresponse()

        assert server.address == f"http://127.0.0.1:{server.port}/?token={server.token}"
        assert get("/api/runs", {}).status == 401
        given = get(f"/?token={server.token}", {})
        assert given.status == 303
        cookie = (given.getheader("Set-Cookie") or "").split(";")[0]
        assert cookie == f"etude-{server.port}={server.token}"
        assert get("/api/runs", {"Cookie": cookie}).status == 200
        assert server.error_output() == ""


def test_the_address_is_what_both_commands_print(
    studied: Watched, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from etude.cli.studio import studio

    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: sockets[0].close())
    studio([studied.path.parent], "127.0.0.1", 0)
    printed = capsys.readouterr().out
    assert printed.startswith("studio: http://127.0.0.1:")
    assert "/?token=" in printed


def test_a_log_that_others_can_read_does_not_hold_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    address = TOKEN.address("127.0.0.1", 8123)
    with (tmp_path / "job.log").open("w") as log:
        (tmp_path / "job.log").chmod(0o644)
        printed = printed_address(address, log)
        assert TOKEN.value not in printed
        assert printed.startswith("http://127.0.0.1:8123/ ")
        assert str(address_file(address)) in printed
        (tmp_path / "job.log").chmod(0o600)
        assert printed_address(address, log) == address
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        assert printed_address(address, pipe) == address
    assert printed_address("") == ""


def test_only_the_owner_reads_the_file_with_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    address, later = TOKEN.address("127.0.0.1", 8123), AccessToken("another").address("127.0.0.1", 8123)
    file = address_file(address)
    file.parent.mkdir()
    file.write_text("open to all")
    file.chmod(0o666)
    keep_address(address)
    assert file.read_text() == address + "\n"
    assert file.stat().st_mode & 0o777 == 0o600
    keep_address(later)  # of the next server at that port
    forget_address(address)
    assert file.read_text() == later + "\n"
    forget_address(later)
    assert not file.exists()
    file.symlink_to(tmp_path / "elsewhere")
    keep_address(address)
    assert not (tmp_path / "elsewhere").exists()
