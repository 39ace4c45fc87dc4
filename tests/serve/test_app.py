"""The server answers its own page, reads what exists, and gives nothing else away."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from etude.train.control import Control
from serving import client_of
from watched import Watched


def test_runs_and_their_facts(client: TestClient, studied: Watched) -> None:
    lines = client.get("/api/runs").json()
    assert [line["name"] for line in lines] == ["llama"]
    assert lines[0]["state"] == "finished"
    facts = client.get("/api/runs/llama").json()
    assert facts["model"]["layers"] == 2
    assert facts["model"]["width"] == 32
    assert facts["model"]["gated"] is True
    assert facts["checkpoints"] == sorted(studied.machine.recorded.checkpoints)
    assert facts["last_step"] == 40
    assert facts["first_step"] == 1
    assert facts["uniform_loss"] == pytest.approx(5.7037825)  # ln 300
    orders = [rung["order"] for rung in facts["ladder"]]
    assert orders == sorted(orders)
    assert len(orders) > 3


def test_the_ladder_is_in_the_units_of_the_loss(client: TestClient) -> None:
    """A rung's loss and bits per byte have the same ratio as those of the evaluations."""
    facts = client.get("/api/runs/llama").json()
    rows = client.get("/api/runs/llama/rows").json()
    evaluated = [row for row in rows["metrics"] if row["event"] == "eval"][-1]
    ratio = evaluated["val_loss"] / evaluated["bits_per_byte"]
    for rung in facts["ladder"]:
        assert rung["loss"] / rung["bits_per_byte"] == pytest.approx(ratio, rel=0.06)


def test_rows_are_the_log(client: TestClient, studied: Watched) -> None:
    rows = client.get("/api/runs/llama/rows?from=0,0").json()
    assert rows["metrics"] == studied.machine.recorded.run.metrics.read()
    assert rows["samples"] == studied.machine.recorded.run.samples.read()
    again = client.get(f"/api/runs/llama/rows?from={rows['cursor']}").json()
    assert again["metrics"] == again["samples"] == []
    assert not again["reset"]
    assert client.get("/api/runs/llama/rows?from=99999999,0").json()["reset"]
    assert client.get("/api/runs/llama/rows?from=x").status_code == 404


@pytest.mark.parametrize("name", ["..", "nothing", "%2e%2e", "a%2Fb", ".", "llama%00"])
def test_only_runs_of_the_folder_are_read(client: TestClient, name: str) -> None:
    for path in (f"/api/runs/{name}", f"/api/runs/{name}/rows"):
        response = client.get(path)
        assert response.status_code == 404 or response.json() == client.get("/api/runs").json()


def test_a_link_that_leads_out_is_refused(studied: Watched, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "theirs"
    shutil.copytree(studied.path, run)
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"event": "step", "step": 1, "loss": 1}\n')
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(secret)
    with client_of(run.parent) as client:
        response = client.get("/api/runs/theirs/rows")
        assert response.status_code == 404
        assert "leads out" in response.json()["error"]


def test_strangers_are_refused(studied: Watched) -> None:
    local = "http://127.0.0.1:8123"
    with client_of(studied.path.parent) as client:
        assert client.get("/api/runs", headers={"Host": "evil.example"}).status_code == 400
        assert client.get("/api/runs", headers={"Origin": "http://evil.example"}).status_code == 403
        assert client.get("/api/runs", headers={"Origin": local}).status_code == 200
        foreign = {"Origin": "http://127.0.0.1:9999", "Content-Type": "application/json"}
        assert client.post("/api/ask", content="{}", headers=foreign).status_code == 403
        plain = {
            "Content-Type": "text/plain"
        }  # a form of another site can send this without a preflight request
        assert client.post("/api/ask", content="{}", headers=plain).status_code == 415
        assert (
            client.post(
                "/api/ask", content=b"x" * (2**20 + 1), headers={"Content-Type": "application/json"}
            ).status_code
            == 413
        )
        assert client.delete("/api/runs").status_code == 405


def test_every_answer_has_a_strict_policy(client: TestClient) -> None:
    for path in ("/api/runs", "/api/nothing", "/"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_source_code_can_be_read(client: TestClient) -> None:
    source = client.get("/api/source", params={"of": "train/step.py:update_step"}).json()
    assert source["text"].startswith("def update_step(")
    assert source["file"] == "src/etude/train/step.py"
    method = client.get("/api/source", params={"of": "train/loop.py:Loop.run"}).json()
    assert method["text"].lstrip().startswith("def run(self)")
    for wrong in ("", "train/step.py", "train/step.py:nothing", "../../setup.py:x", "/etc/passwd:x"):
        assert client.get("/api/source", params={"of": wrong}).status_code == 404


def test_control_is_for_a_run_that_trains(client: TestClient, studied: Watched, tmp_path: Path) -> None:
    sent: dict[str, Any] = {"json": {"action": "pause"}}
    assert "is not training" in client.post("/api/runs/llama/control", **sent).json()["error"]
    run = tmp_path / "runs" / "going"
    shutil.copytree(studied.path, run)
    folder = studied.machine.recorded.run.__class__(run)
    folder.write_status("running", 7)
    with folder.locked(), client_of(run.parent) as going:
        assert going.post("/api/runs/going/control", **sent).status_code == 200
        assert Control(run).paused
        assert going.get("/api/runs/going").json()["paused"]
        assert going.post("/api/runs/going/control", json={"action": "go_on"}).status_code == 200
        assert not Control(run).paused
        assert "one of pause" in going.post("/api/runs/going/control", json={"action": "rm"}).json()["error"]
    with (
        folder.locked(),
        client_of(run.parent, control=False) as watching,
    ):
        assert "may not control" in watching.post("/api/runs/going/control", **sent).json()["error"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("status.json", "[]"),
        ("status.json", '{"state": 3, "step": "x", "heartbeat": "y"}'),
        ("manifest.json", '{"vocab_size": "many", "sessions": 3, "sources": 4}'),
        ("ladder.json", '{"rungs": [3, {"order": "x"}, {"order": 1, "bits_per_byte": NaN}]}'),
        ("run.toml", "nonsense = ["),
        ("metrics.jsonl", "{}\n[]\n{"),
    ],
)
def test_a_damaged_run_is_still_listed(file: str, content: str, studied: Watched, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "damaged"
    shutil.copytree(studied.path, run)
    (run / file).write_text(content)
    with client_of(run.parent) as client:
        assert client.get("/api/runs").status_code == 200
        response = client.get("/api/runs/damaged")
        assert response.status_code == 200
        json.loads(response.text, parse_constant=lambda name: pytest.fail(name))
        assert client.get("/api/runs/damaged/rows").status_code == 200


def test_a_run_whose_trainer_is_gone_is_lost(studied: Watched, tmp_path: Path) -> None:
    import os

    run = tmp_path / "runs" / "lost"
    shutil.copytree(studied.path, run)
    (run / "status.json").write_text(
        json.dumps({"schema": 1, "state": "running", "step": 3, "heartbeat": 1.0})
    )
    os.utime(run / "metrics.jsonl", (1, 1))
    with client_of(run.parent) as client:
        assert client.get("/api/runs/lost").json()["state"] == "lost"
        with studied.machine.recorded.run.__class__(run).locked():  # its process is alive, and slow
            assert client.get("/api/runs/lost").json()["state"] == "running"


def test_a_killed_trainer_of_this_machine_is_lost_at_once(
    studied: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "killed"
    shutil.copytree(studied.path, run)
    folder = studied.machine.recorded.run.__class__(run)
    with client_of(run.parent) as client:
        with folder.locked():
            folder.write_status("running", 7)
            monkeypatch.setattr("etude.run.state.STATUS_DELAY", -1.0)
            assert client.get("/api/runs/killed").json()["state"] == "running"
        assert client.get("/api/runs/killed").json()["state"] == "lost"
        status = json.loads((run / "status.json").read_text()) | {"system": "another machine's"}
        (run / "status.json").write_text(json.dumps(status))
        assert client.get("/api/runs/killed").json()["state"] == "running"


def test_no_torch_in_the_server() -> None:
    import subprocess
    import sys

    code = "import sys, etude.serve.app, etude.serve.server; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_doctors_verdicts_are_those_of_the_command(
    client: TestClient, studied: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from etude.cli.main import app

    monkeypatch.setenv("ETUDE_CACHE", str(studied.cache))
    served = client.post("/api/runs/llama/doctor", json={}).json()
    printed = CliRunner().invoke(app, ["doctor", str(studied.path), "--json"]).output
    expected = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert len(served) == len(expected) > 5

    def without_clock(verdicts: list[dict[str, Any]]) -> dict[str, str]:
        return {v["rule"]: v["severity"] for v in verdicts if "loader" not in v["rule"]}

    assert without_clock(served) == without_clock(expected)
    assert client.post("/api/runs/nothing/doctor", json={}).status_code == 404
