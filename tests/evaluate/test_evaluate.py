"""etude eval on a real small run: its records hold the probes' scores, once for each checkpoint."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from etude.device import git_commit
from etude.errors import InputError
from etude.evaluate.command import EvaluationRequest, evaluate
from etude.evaluate.examined_run import ExaminedRun
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.questions import questions_for
from etude.evaluate.records import FILE, read_records
from etude.evaluate.results import measure
from etude.evaluate.text_scoring import measure_text
from etude.interop.public_command import PublicRequest, public
from etude.pretrained.load_model import load_trained
from etude.run.checkpoints import list_checkpoints, step_of
from watched import Watched, train_run

ITEMS = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return train_run(tmp_path_factory.mktemp("evaluated"), "llama", {"train.checkpoint_every": 8})


@pytest.fixture(autouse=True)
def cache(run: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(run.cache))


def said(request: EvaluationRequest) -> str:
    out = io.StringIO()
    evaluate(request, Console(file=out, width=120))
    return out.getvalue()


def test_every_checkpoint_is_evaluated_once(run: Watched) -> None:
    output = said(EvaluationRequest(run.path, ("world",), every_checkpoint=True, num_items=ITEMS))
    assert "who has what" in output
    count = len({record.title for record in read_records(run.path).records})
    assert f"if all {count} were at chance, {0.025 * count:.1f} of them would be above it by luck" in output
    lines = (run.path / FILE).read_text().splitlines()
    found = read_records(run.path)
    assert found.damaged == 0
    checkpoints = list_checkpoints(run.path / "checkpoints")
    assert {record.where.step for record in found.records} == set(map(step_of, checkpoints))
    assert all(record.counting is not None and record.random is not None for record in found.records)
    assert len({(record.title, record.items) for record in found.records}) == len(lines) / len(checkpoints)
    said(EvaluationRequest(run.path, ("world",), every_checkpoint=True, num_items=ITEMS))
    again = (run.path / FILE).read_text().splitlines()
    assert again[: len(lines)] == lines
    assert len(again) - len(lines) == len(lines) / len(
        checkpoints
    )  # only the newest is evaluated again, to be shown
    assert not (run.path / "derived" / "evaluation").exists()


def test_a_record_is_what_the_probe_says(run: Watched) -> None:
    checkpoint = list_checkpoints(run.path / "checkpoints")[1]
    said(EvaluationRequest(checkpoint, ("world",), num_items=ITEMS))
    examined = ExaminedRun.of(run.path)
    assert examined is not None
    trained = load_trained(checkpoint)
    context = trained.model.config.max_position_embeddings
    records = {r.items: r for r in read_records(run.path).records if r.where.step == step_of(checkpoint)}
    for probe in questions_for(examined.data, ("world",), ITEMS, context).probes[:6]:
        scores = ModelAnswerer(trained.model, trained.tokenizer).answer(probe.items)
        expected, record = measure(probe, scores), records[probe.hash]
        assert record.model.accuracy == expected.accuracy
        assert record.model.margin.value == pytest.approx(expected.margin.value, abs=1e-6)
    where = next(iter(records.values())).where
    assert where.tokens_seen == step_of(checkpoint) * 6 * 32
    assert where.seed == examined.settings.run.seed


def test_the_losses_between_evaluations_lie_between_them(run: Watched) -> None:
    examined = ExaminedRun.of(run.path)
    assert examined is not None
    steps = [event.step for event in examined.evals]
    assert [examined.val_loss(step) for step in steps] == [event.val_loss for event in examined.evals]
    for before, after in zip(examined.evals, examined.evals[1:], strict=False):
        if after.step > before.step + 1:
            loss = examined.val_loss(before.step + 1)
            assert loss is not None
            assert min(before.val_loss, after.val_loss) <= loss <= max(before.val_loss, after.val_loss)
    assert examined.val_loss(max(steps) + 1) is None


def test_json_says_the_same(run: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    said(EvaluationRequest(run.path, ("world", "tasks"), num_items=ITEMS, as_json=True))
    content = json.loads(capsys.readouterr().out)
    assert content["text"]["bits_per_byte"]["value"] > 0
    assert content["text"]["in_context"]["gain"]["value"] is not None
    assert len(content["text"]["induction_heads"]["scores"]) == 2
    assert "memorisation" in content["text"]
    assert {"who has what", "brackets"} <= {probe["probe"] for probe in content["probes"]}
    assert content["questions"]
    assert (content["seed"], content["step"], content["commit"]) == (1337, 40, git_commit())
    assert {probe["commit"] for probe in content["probes"]} == {git_commit()}


def test_a_model_folder_has_no_text_of_its_own(
    run: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in list_checkpoints(run.path / "checkpoints")[-1].iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    said(EvaluationRequest(folder, num_items=ITEMS, as_json=True))
    content = json.loads(capsys.readouterr().out)
    probes = content["probes"]
    assert all(
        probe["counting"] is None and probe["label"] == "not held against counting" for probe in probes
    )
    assert (content["seed"], content["step"], content["commit"]) == (None, None, git_commit())
    with pytest.raises(InputError, match="--suite world"):
        said(EvaluationRequest(folder, ("text",)))


def test_any_text_can_be_measured(run: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For a run and for its bare model folder; the figures are those of the engine called directly."""
    texts = ["The fox ran home. She was glad.", "A miller sang to the otter."]
    file = tmp_path / "other.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    checkpoint = list_checkpoints(run.path / "checkpoints")[-1]
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    trained = load_trained(checkpoint)
    expected = measure_text(
        trained.model, trained.tokenizer, [(str(at), one) for at, one in enumerate(texts)]
    )
    written = (run.path / "derived" / "measures.json").read_bytes()
    for path, step in ((run.path, 40), (folder, None)):
        said(EvaluationRequest(path, text=(str(file),), as_json=True))
        content = json.loads(capsys.readouterr().out)
        assert content["text"]["bits_per_byte"]["value"] == pytest.approx(expected.bits_per_byte.value)
        assert content["text"]["num_bytes"] == sum(len(text.encode()) for text in texts)
        assert (content["probes"], content["step"]) == ([], step)
        assert bool(content["text"]["by_frequency"]) == (step is not None)
        assert f"this text: {expected.bits_per_byte.value:.4f} bits per byte" in said(
            EvaluationRequest(path, text=(str(file),))
        )
    assert (run.path / "derived" / "measures.json").read_bytes() == written
    assert not list((run.cache / "evaluation").glob("*/*"))
    with pytest.raises(InputError, match="no file or folder"):
        said(EvaluationRequest(folder, text=(str(tmp_path / "none.txt"),)))


def test_only_a_run_knows_the_words_of_its_text(run: Watched, tmp_path: Path) -> None:
    folder = shutil.copytree(list_checkpoints(run.path / "checkpoints")[-1], tmp_path / "model")
    with pytest.raises(InputError, match=r"--covered .* name a run"):
        public(PublicRequest(folder, ["blimp"], covered=True), Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"suites": ("words",)}, "--suite takes text, world, tasks"),
        ({"suites": ("modular",)}, "suite modular is for runs of builtin:modular"),
        ({"expect": "0123", "suites": ("world",), "num_items": ITEMS}, "fixed before training"),
    ],
)
def test_a_mistake_is_one_line(run: Watched, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        said(EvaluationRequest(run.path, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff" * 100, b'{"schema": 0}\n'], ids=["empty", "noise", "older"]
)
def test_damaged_records_are_rewritten(run: Watched, content: bytes) -> None:
    file = run.path / FILE
    before = file.read_bytes() if file.exists() else None
    try:
        file.write_bytes(content)
        said(EvaluationRequest(list_checkpoints(run.path / "checkpoints")[-1], ("world",), num_items=ITEMS))
        assert read_records(run.path).records
    finally:
        file.unlink()
        if before is not None:
            file.write_bytes(before)


def test_all_steps_are_those_of_a_run(run: Watched) -> None:
    with pytest.raises(InputError, match=f"is one checkpoint.* name the run, {run.path}"):
        said(
            EvaluationRequest(
                list_checkpoints(run.path / "checkpoints")[0], ("world",), every_checkpoint=True
            )
        )


@pytest.mark.parametrize(
    ("state", "words"), [("running", "wait for its first"), ("finished", "has finished.* restore its folder")]
)
def test_a_run_without_checkpoints_gets_the_reason(
    run: Watched, tmp_path: Path, state: str, words: str
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(run.path, bare, ignore=shutil.ignore_patterns("step-*"))
    status = bare / "status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "state": state}))
    with pytest.raises(InputError, match=words):
        said(EvaluationRequest(bare))


@pytest.fixture
def short(run: Watched, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Make the run's held-out text seem too short for probes."""
    monkeypatch.setattr("etude.evaluate.text_probes.suite.FEWEST_CHARS", 10**9)
    return run


def test_a_short_text_is_measured_without_probes(short: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    output = said(EvaluationRequest(short.path))
    assert "bits per byte" in output
    assert "skipped: the suite text: the held-out text has" in output
    assert "ability" not in output
    said(EvaluationRequest(short.path, as_json=True))
    content = json.loads(capsys.readouterr().out)
    assert content["text"]["bits_per_byte"]["value"] > 0
    assert (content["questions"], content["probes"]) == (None, [])
    assert "who has what" in said(EvaluationRequest(short.path, ("text", "world"), num_items=ITEMS))


def test_nothing_at_all_is_an_error(short: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no probe is left: the suite text.*omit --steps"):
        said(EvaluationRequest(short.path, every_checkpoint=True))

    def refuse(*_: object) -> None:
        raise InputError("there is no held-out text")

    monkeypatch.setattr("etude.evaluate.command.measure_whole_text", refuse)
    assert "skipped: the text as a whole: there is no" in said(
        EvaluationRequest(short.path, ("world",), num_items=ITEMS)
    )
    with pytest.raises(InputError, match=r"no probe is left.*the text as a whole: there is no held-out text"):
        said(EvaluationRequest(short.path))
