"""Adapt a trained network to the model interface of the lm-eval library.

This module needs the library (the extra `eval`): import it only after `public_suites.require_lm_eval` has passed.
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
"""Requests between two calls of the progress callback."""

TokenRequest = tuple[Any, list[int], list[int]]
"""The request (not used), the given tokens, and the tokens to score."""


class EtudeLM(TemplateLM):  # type: ignore[misc]
    """Etude's engine, in float32, under the library's own rules for tokenizing requests.

    A text without context follows the token that begins a document. As in the library's `hf` model, a context begins
    with that token if the folder's tokenizer.json puts it there, so that both give the same figures; `begin_documents`
    overrides this. The `hf` model differs in one respect: for a tokenizer that begins documents, it also scores the
    token that begins a whole text (`loglikelihood_rolling`), unless it is given add_bos_token=False.

    A continuation is scored from the first token that reaches into it. If that token begins within the context, the
    `hf` model instead splits at the number of the context's tokens, and so does not score that token.
    A first guess that ties with another does not count as one.
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
        return self.etude_tokenizer.roles.document_id

    @property
    def max_length(self) -> int:
        return self.model.config.max_position_embeddings

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.etude_tokenizer.encode(string)

    def num_tokens(self, context: str, continuation: str) -> int:
        """Return the number of tokens of the continuation that are scored."""
        if context:
            return len(self._encode_pair(context, continuation)[1])
        return len(self.tok_encode(continuation))

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return, for each request, (log P(continuation | context), whether each token is the only first guess).

        Raises InputError for a continuation without a token of its own: its probability would be 1, and it would win.
        """
        for context, continuation in (request.args for request in requests):
            if not continuation:
                raise _nothing_to_score(context, continuation)
        return list(super().loglikelihood(requests, disable_tqdm=disable_tqdm))

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokenize both together, and split before the first token that reaches into the continuation.

        White space at the end of the context belongs to the continuation, as in the library.
        """
        whole = self.tok_encode(context + continuation)
        first = first_beyond(whole, self.tok_encode(context.rstrip()))
        if first == len(whole):
            raise _nothing_to_score(context, continuation)
        return whole[:first], whole[first:]

    def _loglikelihood_tokens(self, requests: Sequence[TokenRequest], **_: Any) -> list[tuple[float, bool]]:
        results: list[tuple[float, bool]] = []
        for start in range(0, len(requests), _AT_A_TIME):
            some = requests[start : start + _AT_A_TIME]
            scored = self._score([(given, continuation) for _, given, continuation in some])
            for request, score in zip(some, scored, strict=True):
                self.cache_hook.add_partial("loglikelihood", request[0], score)
            results += scored
            if self.report is not None:
                self.report(len(results), len(requests))
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:
        """Score in the library's windows: each token is scored once, given those before it in its window."""
        results = []
        for number, request in enumerate(requests, start=1):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[-1]),
                prefix_token=self.eot_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            scored = self._score([make_disjoint_window(window) for window in windows])
            results.append(sum(logprob for logprob, _ in scored))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, results[-1])
            if self.report is not None:
                self.report(number, len(requests))
        return results

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """Generate greedily unless the request asks for sampling; a long context loses its beginning."""
        results = []
        for number, request in enumerate(requests, start=1):
            context, options = request.args
            settings = normalize_gen_kwargs(dict(options), 256)
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
                stop_ids=self.etude_tokenizer.roles.stop_ids,
                seed=[number],
                compile=False,
            )[0]
            text = self.etude_tokenizer.decode(generation.token_ids)
            results.append(postprocess_generated_text(text, stops, None))
            self.cache_hook.add_partial("generate_until", request.args, results[-1])
            if self.report is not None:
                self.report(number, len(requests))
        return results

    def _begin(self, given: list[int]) -> list[int]:
        """Prepend the token that begins a document, unless it is there or not wanted."""
        return (
            [self.eot_token_id, *given]
            if self.begin_documents and given[:1] != [self.eot_token_id]
            else given
        )

    def _score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Return (log P(continuation | given), whether each token is the only first guess) for each pair.

        Texts that are longer than the context lose their beginning.
        """
        texts = []
        for given, continuation in pairs:
            whole = (self._begin(given) or [self.eot_token_id]) + continuation
            texts.append(tuple(whole[-max(self.max_length, len(continuation)) - 1 :]))
        unique = list(dict.fromkeys(texts))
        scores = dict(zip(unique, score_sequences(self.model, unique, batch_size=self.num_rows), strict=True))
        results = []
        for text, (_, continuation) in zip(texts, pairs, strict=True):
            score, count = scores[text], len(continuation)
            results.append((float(score.logprobs[-count:].sum()), bool((score.credits[-count:] == 1).all())))
        return results


def _nothing_to_score(context: str, continuation: str) -> InputError:
    return InputError(
        f"a task asks for the probability of {shown(repr(continuation))} after {shown(repr(context[-40:]))}, but there "
        "is no token to score: correct that row of the task, or omit the task"
    )
