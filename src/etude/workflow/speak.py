"""What ``etude generate`` and ``etude score`` print."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from etude.errors import InputError
from etude.generate.sampling import SamplingSettings
from etude.workflow.language import TextScore, load


def generate(model: Path, prompt: str, settings: SamplingSettings, seed: int) -> None:
    """Print ``prompt`` and its continuation as it comes."""
    language = load(model)
    if prompt == "-":
        prompt = _standard_input()
    sys.stdout.write(prompt)
    for piece in language.stream(prompt, settings, seed):
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def score(model: Path, file: Path, *, json_lines: bool, summary: bool) -> None:
    """Print each token of ``file`` with its log-probability, then the figures of the whole.

    Raises:
        InputError: the file cannot be read as UTF-8 text.
    """
    text = _standard_input() if str(file) == "-" else _read_text(file)
    result = load(model).score(text)
    if not summary:
        for token_id, token, logprob in zip(result.token_ids, result.tokens, result.logprobs, strict=True):
            if json_lines:
                line = {"id": token_id, "token": token, "logprob": logprob}
                print(json.dumps(line, ensure_ascii=False))
            else:
                print(f"{logprob:9.4f}  {token!r}")
    print(json.dumps(_figures(result)) if json_lines else _sentence(result))


def _figures(result: TextScore) -> dict[str, float | int]:
    return {
        "tokens": len(result.logprobs),
        "bytes": result.num_bytes,
        "nats_per_token": result.nats_per_token,
        "bits_per_byte": result.bits_per_byte,
    }


def _sentence(result: TextScore) -> str:
    return (
        f"{len(result.logprobs):,} tokens, {result.num_bytes:,} bytes: {result.nats_per_token:.4f} nats a token, "
        f"{result.bits_per_byte:.4f} bits a byte"
    )


def _read_text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"no file at {file}: check the path, or use - for standard input") from None
    except IsADirectoryError:
        raise InputError(f"{file} is a folder: name one text file in it") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file} is not UTF-8 text (byte {error.start}): convert it, for example iconv -f latin1 -t utf-8"
        ) from None
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from None


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 text (byte {error.start})") from None
