"""The command line as users see it: exit codes, one line for each mistake, no half-written files."""

from __future__ import annotations

import gzip
import io
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from etude.config import load_settings
from etude.data.primer.generator import documents
from etude.workflow import jobs
from waiting import PATIENCE, wait_until

SMALL = [
    "--size=nano", "--steps=4", "--set=model.hidden_size=32", "--set=train.context=32", "--set=train.batch_rows=4",
    "--set=tokenizer.vocab_size=300", "--set=device.compile=false", "--set=device.threads=1",
    "--set=data.workers=1", "--set=train.eval_tokens=500",
]  # fmt: skip


def etude(
    *arguments: object, cwd: Path, stdin: bytes | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "etude", *map(str, arguments)]
    result = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, timeout=PATIENCE, **options)
    return subprocess.CompletedProcess(
        command, result.returncode, result.stdout.decode(), result.stderr.decode()
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "stories.txt"
    file.write_text("\n\n".join(document.text for document in documents(5, 40_000)))
    return file


@pytest.fixture(scope="module")
def run(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a small finished run, once."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(folder / "cache"))
        overrides = [option.removeprefix("--set=") for option in SMALL if option.startswith("--set=")]
        values = {
            "model.size": "nano",
            "train.steps": 4,
            "data.sources": (str(text),),
            "run.folder": str(folder / "runs"),
        }
        settings = load_settings(None, overrides, values)
        return jobs.grow(settings, Console(file=io.StringIO())).run.path


def test_help_names_the_commands(tmp_path: Path) -> None:
    result = etude("--help", cwd=tmp_path)
    assert result.returncode == 0
    for command in ("train", "generate", "score", "data", "runs", "plot", "settings", "doctor"):
        assert command in result.stdout


def test_import_pulls_in_nothing_heavy(tmp_path: Path) -> None:
    """This keeps `etude --help` fast."""
    heavy = "('torch', 'numpy', 'matplotlib', 'tokenizers', 'pyarrow', 'pydantic', 'starlette')"
    code = f"import sys, etude, etude.cli.main; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert result.stdout.strip() == "[]"


def test_from_text_to_a_model_that_speaks(text: Path, tmp_path: Path) -> None:
    trained = etude("train", text, "--name=first", *SMALL, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "etude generate runs/first" in trained.stdout
    listed = etude("runs", cwd=tmp_path)
    assert "first" in listed.stdout
    assert "finished" in listed.stdout
    output = etude("generate", "runs/first", "Once upon", "--max-new-tokens=12", "--seed=3", cwd=tmp_path)
    again = etude("generate", "runs/first", "Once upon", "--max-new-tokens=12", "--seed=3", cwd=tmp_path)
    assert output.returncode == 0, output.stderr
    assert output.stdout.startswith("Once upon")
    assert output.stdout == again.stdout
    plotted = etude("plot", "runs/first", cwd=tmp_path)
    assert plotted.returncode == 0, plotted.stderr
    assert {Path(line).suffix for line in plotted.stdout.split()} == {".png", ".svg"}
    report = etude("data", "report", text, "--png=report.png", "--json=report.json", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    assert (tmp_path / "report.png").stat().st_size > 1000
    assert json.loads((tmp_path / "report.json").read_text())


def test_text_from_standard_input(text: Path, tmp_path: Path) -> None:
    result = etude("train", "-", *SMALL, cwd=tmp_path, stdin=text.read_bytes())
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "runs" / "stdin" / "run.toml").is_file()


def test_score_adds_up(run: Path, text: Path, tmp_path: Path) -> None:
    sample = tmp_path / "sample.txt"
    sample.write_text(text.read_text()[:700] + " 🦊 naïve")
    lines = [
        json.loads(line) for line in etude("score", run, sample, "--json", cwd=tmp_path).stdout.splitlines()
    ]
    *tokens, whole = lines
    assert whole["tokens"] == len(tokens)
    assert whole["bytes"] == len(sample.read_bytes())
    nats = -sum(token["logprob"] for token in tokens)
    assert whole["nats_per_token"] == pytest.approx(nats / len(tokens))
    assert whole["bits_per_byte"] == pytest.approx(nats / 0.6931471805599453 / whole["bytes"])
    plain = etude("score", run, sample, "--summary", cwd=tmp_path).stdout
    assert f"{whole['bits_per_byte']:.4f} bits per byte" in plain


def test_score_reads_what_training_reads(run: Path, text: Path, tmp_path: Path) -> None:
    stories = [*text.read_text()[:900].split("\n\n")[:3], "naïve\ud800 🦊\r\nand so on"]
    rows = [json.dumps({"body": story}) for story in stories]
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write("\n".join([*rows, "not a row", '{"body": ""}']))
    result = etude("score", run, "rows.jsonl.gz", "--json", "--set=data.text_field=body", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    documents = [line for line in lines if "document" in line]
    assert [line["document"] for line in documents] == [
        f"rows.jsonl.gz:{n}" for n in range(1, len(stories) + 1)
    ]
    *_, whole = lines
    assert whole["documents"] == len(stories)
    assert sum("id" in line for line in lines) == whole["tokens"] == sum(d["tokens"] for d in documents)
    assert len(lines) == whole["tokens"] + len(documents) + 1
    stories[-1] = "naïve\ufffd 🦊\nand so on"
    nats = 0.0
    for story, line in zip(stories, documents, strict=True):  # each as if it stood alone
        alone = etude("score", run, "-", "--json", "--summary", cwd=tmp_path, stdin=story.encode())
        figures = json.loads(alone.stdout)
        assert line["bytes"] == figures["bytes"] == len(story.encode())
        assert line["bits_per_byte"] == pytest.approx(figures["bits_per_byte"])
        nats += figures["nats_per_token"] * figures["tokens"]
    assert whole["nats_per_token"] == pytest.approx(nats / whole["tokens"])
    assert "1 bad JSON line (such as rows.jsonl.gz:" in result.stderr
    assert "1 empty (such as rows.jsonl.gz:" in result.stderr


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("sheet.xlsx", "save the sheet as .csv"),
        ("absent.txt", "absent.txt"),
        ("empty.txt", "empty"),
        ("rows.csv", "no 'text'"),
    ],
)
def test_what_cannot_be_scored_is_one_line(run: Path, tmp_path: Path, file: str, words: str) -> None:
    (tmp_path / "sheet.xlsx").write_bytes(b"PK")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "rows.csv").write_text("body\nOnce upon a time\n")
    result = etude("score", run, file, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert words in result.stderr
    assert not result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "absent.txt"], "absent.txt"),
        (["train", "empty"], "empty"),
        (["train", ""], "empty name"),
        (["train", "good.txt", "--set", "device.threads=100000"], "device.threads"),
        (["train", "binary.txt"], "binary"),
        (["train", "sheet.xlsx"], "save the sheet as .csv"),
        (["train", "good.txt", "--set", "data.encoding=klingon"], "no encoding 'klingon'"),
        (["train", "good.txt", "--set", "data.csv_delimiter=dots"], "data.csv_delimiter"),
        (["train", "good.txt", "--set", "train.ler=1"], "did you mean 'train.lr'"),
        (
            ["train", "good.txt", "--set", "model.hidden_size=100", "--set", "model.num_attention_heads=3"],
            "hidden_size",
        ),
        (["train", "good.txt", "--size", "huge"], "'nano'"),
        (["train", "good.txt", "--set", "model.hidden_size=100000"], "GiB of memory"),
        (["train", "good.txt", "--tokenizer", "absent.json"], "absent.json"),
        (["train", "good.txt", "--tokenizer", "good.txt"], "good.txt"),
        (["train", "good.txt", "--set", "tokenizer.vocab_size=3"], "tokenizer.vocab_size"),
        (["train", "good.txt", "--set", "device.kind=mps"], "mps"),
        (["train", "good.txt", "--config", "absent.toml"], "absent.toml"),
        (["train", "good.txt", "--name", "../x"], "cannot name a run"),
        (["sweep", "--items", "8"], "--items 64"),
        (["sweep", "--seeds", "0"], "--seeds 3"),
        (["train", "--recipe", "grok"], "choose grokking or induction"),
        (["train", "--recipe", "induction", "--config", "good.txt"], "not both"),
        (["train", "--resume", "runs/none"], "runs/none"),
        (["train", "good.txt", "--resume", "runs/none"], "--resume continues with the run's own settings"),
        (["train", "hf:nobody/nothing"], "nobody/nothing"),
        (["generate", "runs/none", "x"], "runs/none"),
        (["score", "runs/none", "good.txt"], "runs/none"),
        (["score", "runs/none", "good.txt", "--set", "train.lr=1"], "data.text_field"),
        (["plot", "runs/none"], "runs/none"),
        (["runs", "nowhere"], "nowhere"),
        (["data", "report", "absent"], "absent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(
    text: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "good.txt").write_bytes(text.read_bytes())
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "sheet.xlsx").write_bytes(b"PK")
    before = sorted(path.name for path in tmp_path.iterdir())
    result = etude(*arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith("etude: ")
    assert words in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_damage_is_named_and_refused(run: Path, text: Path, tmp_path: Path) -> None:
    import shutil

    for name in ("model.safetensors", "tokenizer.json", "config.json", "train_state.json"):
        broken = tmp_path / name.split(".")[0]
        shutil.copytree(run, broken)
        newest = max((broken / "checkpoints").iterdir())
        content = (newest / name).read_bytes()
        (newest / name).write_bytes(content[: len(content) // 2])
        result = etude("generate", broken, "x", cwd=tmp_path)
        assert result.returncode == 2, (name, result.stderr)
        assert name in result.stderr
        assert "Traceback" not in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


def test_a_full_disk_ends_the_run_and_keeps_what_was_saved(text: Path, tmp_path: Path) -> None:
    def no_file_over_100_kb() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    etude("data", "report", text, "--set=tokenizer.vocab_size=300", "--set=data.workers=1", cwd=tmp_path)
    result = etude("train", text, "--name=full", *SMALL, cwd=tmp_path, preexec_fn=no_file_over_100_kb)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "free some space" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list((tmp_path / "runs" / "full").rglob("*.safetensors"))
    assert not list((tmp_path / "runs" / "full").rglob(".staging*"))
    resumed = etude("train", "--resume", "runs/full", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr


def test_ctrl_c_saves_and_prints_how_to_continue(text: Path, tmp_path: Path) -> None:
    import signal

    command = [sys.executable, "-m", "etude", "train", str(text), "--name=long", *SMALL, "--steps=100000"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "runs" / "long" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and '"step": 20' in metrics.read_text())
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75, errors
    assert "etude train --resume runs/long" in output
    status = json.loads((tmp_path / "runs" / "long" / "status.json").read_text())
    assert status["state"] == "stopped"
    assert (tmp_path / "runs" / "long" / "checkpoints" / f"step-{status['step']:08d}").is_dir()


def test_a_time_limit_saves_and_says_so_by_its_exit_code(text: Path, tmp_path: Path) -> None:
    command = ["train", str(text), "--name=limited", *SMALL, "--steps=100000", "--stop-after=15s"]
    result = etude(*command, cwd=tmp_path)
    assert result.returncode == 75, result.stderr
    assert "stopped and saved at step" in result.stdout
    again = etude("train", "--resume", "runs/limited", "--stop-after", "1s", cwd=tmp_path)
    assert again.returncode == 75, again.stderr
    longer = etude("train", "--resume", "runs/limited", "--set", "train.context=8", cwd=tmp_path)
    assert longer.returncode == 2
    assert "--fork" in longer.stderr


def test_one_process_at_a_time_trains_a_run(text: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "etude", "train", str(text), "--name=mine", *SMALL, "--steps=100000"]
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = tmp_path / "runs" / "mine" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and '"step": 10' in metrics.read_text())
    second = etude("train", "--resume", "runs/mine", cwd=tmp_path)
    first.kill()  # it cannot clean up
    first.wait()
    assert second.returncode == 2
    assert "another process" in second.stderr
    third = subprocess.Popen(
        [sys.executable, "-m", "etude", "train", "--resume", "runs/mine"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert third.stdout is not None
    assert any("continues from step" in line for line in third.stdout)
    third.kill()
    third.wait()


def test_output_into_a_closed_pipe_is_quiet(run: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -m etude settings | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert "Traceback" not in result.stderr


def test_training_goes_on_when_nobody_reads_its_output(text: Path, tmp_path: Path) -> None:
    options = " ".join([*SMALL, "--steps=30", "--no-studio", "--name=unread"])
    command = f"set -o pipefail; {sys.executable} -m etude train {text} {options} | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("this output has no reader any more") == 1
    status = json.loads((tmp_path / "runs" / "unread" / "status.json").read_text())
    assert (status["state"], status["step"]) == ("finished", 30)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--items", "0"), "--items takes 16 or more, not 0: type --items 16"),
        (("--items", "-3"), "--items takes 16 or more, not -3"),
        (("--processes", "0"), "--processes takes 1 or more, not 0"),
        (("--threads", "0"), "--threads takes 1 or more, not 0"),
        (("--threads", "5000"), "--threads takes 1024 at most, not 5000"),
        (
            ("--tasks", "blimp", "--threads", "1"),
            "--tasks runs public suites on one model, with all cores: omit --suite,",
        ),
        (("--tasks", "blimp", "--limit", "0"), "--limit takes 1 or more, not 0"),
    ],
)
def test_a_number_that_cannot_be_is_one_line(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    result = etude("eval", "run", *options, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(f"etude: {words}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--covered",), "--limit, --local and --covered belong to --tasks"),
        (("--tasks", "blimp", "--text", "a.txt"), "--tasks runs public suites on one model"),
        (("--text", "a.txt", "--suite", "world"), "--text measures a text and runs no probes: omit --suite"),
    ],
)
def test_options_of_an_evaluation_that_do_not_fit(
    tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    result = etude("eval", "run", *options, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(f"etude: {words}")
    assert result.stderr.count("\n") == 1


def test_a_run_leaves_what_the_documents_list(run: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "what-goes-in.md").read_text()
    of_run, of_checkpoint = page.split("A checkpoint, `checkpoints/")
    for folder, part in ((run, of_run), (run / "checkpoints" / "step-00000004", of_checkpoint)):
        table = part.split("| file | holds |")[1]
        listed = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
        assert {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} == listed


def test_score_takes_the_settings_of_the_readers(run: Path, tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_bytes("n;body\n1;Мой дядя\n".encode("koi8-r"))
    options = ["--set=data.text_field=body", "--set=data.encoding=koi8-r", "--set=data.csv_delimiter=;"]
    result = etude("score", run, "old.csv", "--json", *options, cwd=tmp_path)
    tokens = [json.loads(line) for line in result.stdout.splitlines()]
    assert tokens[-1]["bytes"] == len("Мой дядя".encode())
    assumed = etude("score", run, "old.csv", "--set=data.text_field=body", "--summary", cwd=tmp_path)
    assert "old.csv: not UTF-8, read as koi8-" in assumed.stderr
