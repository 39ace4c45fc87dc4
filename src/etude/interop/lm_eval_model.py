"""A trained network as a model of the lm-eval library: the library asks, Etude's engine answers.

This file needs the library (the extra `eval`); import it only where `etude.interop.public_suites` has found it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.evaluate.answerers import Report
from etude.generate.engine import generate
from etude.generate.sampling import SamplingSettings
from etude.generate.scoring import first_beyond, score_sequences
from etude.model.language_model import LanguageModel
from etude.untrusted import shown

_AT_A_TIME = 256

TokenRequest = tuple[Any, list[int], list[int]]
"""What was asked (not looked at), the tokens that are given, and those to be scored."""


class EtudeLM(TemplateLM):  # type: ignore[misc]
    """Etude's engine, in float32, under the library's own rules of cutting text into tokens.

    A text without context follows the token that begins a document. As in the library's `hf` model, a context begins
    with that token where the tokenizer.json of the folder puts it there, so that both give the same figures;
    `begin_documents` decides otherwise. In one thing the `hf` model differs: of a tokenizer that begins documents it
    also scores the token that begins a whole text (`loglikelihood_rolling`), unless it is given add_bos_token=False.

    A continuation is scored from the first token that reaches into it. Where that token begins within the context,
    the `hf` model splits at the number of the context's tokens instead, and so leaves that token unscored.
    A first guess that ties with another is none.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: EtudeTokenizer,
        *,
        batch_size: int = 16,
        begin_documents: bool | None = None,
        report: Report | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.etude_tokenizer = tokenizer
        self.num_rows = batch_size
        self.begin_documents = tokenizer.begins_documents if begin_documents is None else begin_documents
        self.report = report

    @property
    def eot_token_id(self) -> int:
        return self.etude_tokenizer.eos_id

    @property
    def max_length(self) -> int:
        return self.model.config.max_position_embeddings

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.etude_tokenizer.encode(string)

    def num_tokens(self, context: str, continuation: str) -> int:
        """Tokens of the continuation, as they are scored."""
        if context:
            return len(self._encode_pair(context, continuation)[1])
        return len(self.tok_encode(continuation))

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """(log P(continuation | context), whether each of its tokens is the only first guess) of each request.

        Raises InputError for a continuation without a token of its own: its probability would be 1, and it would win.
        """
        for context, continuation in (request.args for request in requests):
            if not continuation:
                raise _nothing_to_score(context, continuation)
        return list(super().loglikelihood(requests, disable_tqdm=disable_tqdm))

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The tokens of the whole, split before the first that reaches into the continuation.

        White space that ends the context belongs to the continuation, as in the library.
        """
        whole = self.tok_encode(context + continuation)
        first = first_beyond(whole, self.tok_encode(context.rstrip()))
        if first == len(whole):
            raise _nothing_to_score(context, continuation)
        return whole[:first], whole[first:]

    def _loglikelihood_tokens(self, requests: Sequence[TokenRequest], **_: Any) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = []
        for start in range(0, len(requests), _AT_A_TIME):
            some = requests[start : start + _AT_A_TIME]
            scored = self._score([(given, said) for _, given, said in some])
            for request, score in zip(some, scored, strict=True):
                self.cache_hook.add_partial("loglikelihood", request[0], score)
            found += scored
            if self.report is not None:
                self.report(len(found), len(requests))
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:
        """In the library's windows: each token is scored once, from those before it in its window."""
        found = []
        for number, request in enumerate(requests, start=1):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[-1]),
                prefix_token=self.eot_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            scored = self._score([make_disjoint_window(window) for window in windows])
            found.append(sum(logprob for logprob, _ in scored))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, found[-1])
            if self.report is not None:
                self.report(number, len(requests))
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """Greedy unless the request asks for sampling; of a long context the end is read."""
        found = []
        for number, request in enumerate(requests, start=1):
            context, asked = request.args
            settings = normalize_gen_kwargs(dict(asked), 256)
            stops = handle_stop_sequences(settings.get("until"), eos=None)
            room = max(1, self.max_length - settings["max_gen_toks"])
            prompt = (self._begin(self.tok_encode(context)) or [self.eot_token_id])[-room:]
            generation = generate(
                self.model,
                [prompt],
                SamplingSettings(
                    temperature=float(settings["temperature"]) if settings["do_sample"] else 0.0,
                    top_p=float(settings.get("top_p", 1.0)),
                    top_k=int(settings["top_k"]) if settings.get("top_k") else None,
                    max_new_tokens=settings["max_gen_toks"],
                ),
                eos_id=self.eot_token_id,
                seed=[number],
                compile=False,
            )[0]
            text = self.etude_tokenizer.decode(generation.token_ids)
            found.append(postprocess_generated_text(text, stops, None))
            self.cache_hook.add_partial("generate_until", request.args, found[-1])
            if self.report is not None:
                self.report(number, len(requests))
        return found

    def _begin(self, given: list[int]) -> list[int]:
        return (
            [self.eot_token_id, *given]
            if self.begin_documents and given[:1] != [self.eot_token_id]
            else given
        )

    def _score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """(log P(said | given), whether every token of it is the only first guess); a long text loses its beginning."""
        texts = []
        for given, said in pairs:
            whole = (self._begin(given) or [self.eot_token_id]) + said
            texts.append(tuple(whole[-max(self.max_length, len(said)) - 1 :]))
        unique = list(dict.fromkeys(texts))
        scores = dict(zip(unique, score_sequences(self.model, unique, batch_size=self.num_rows), strict=True))
        found = []
        for text, (_, said) in zip(texts, pairs, strict=True):
            score = scores[text]
            found.append(
                (float(score.logprobs[-len(said) :].sum()), bool((score.credits[-len(said) :] == 1).all()))
            )
        return found


def _nothing_to_score(context: str, continuation: str) -> InputError:
    return InputError(
        f"a task asks how probable {shown(repr(continuation))} is after {shown(repr(context[-40:]))}, and there is no "
        "token to score: correct that row of the task, or leave the task out"
    )
