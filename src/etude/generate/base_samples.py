"""Text sampled from a base model, which a tuning trains on as well, so that it forgets less.

Samples at temperature 1 follow the distribution p of the base. The mean loss of a tuned model q on them is the
cross-entropy H(p, q) = H(p) + KL(p || q), so training on them lowers an estimate of the divergence from the base,
without the base being loaded during training.

Half of the tokens are documents, and half are conversations, of which the base wrote both question and answer (as in
Xu et al. 2024, "Magpie"); of these the answer is trained. A base without a chat template writes documents alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from etude.data.conversations.conversation import Message
from etude.data.conversations.encode import encode_prompt
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.generate.chat_prompt import Chatter
from etude.generate.engine import Generation, generate
from etude.generate.sampling import SamplingSettings, row_seed
from etude.model.language_model import LanguageModel

ROWS = 16
"""Samples that are generated together."""
LONGEST = 256
"""Most tokens of a document, a question or an answer."""


def base_samples(
    model: LanguageModel, tokenizer: EtudeTokenizer, num_tokens: int, seed: int, *, knows_turns: bool
) -> Iterator[dict[str, Any]]:
    """Yield rows with a ``text``, or with ``messages``, until about ``num_tokens`` tokens are trained on.

    ``knows_turns``: whether the base was trained on conversations; else it writes documents alone.
    """
    context = model.config.max_position_embeddings
    chatter = Chatter.of(tokenizer, context) if knows_turns else None
    tokens, batch = 0, 0
    while tokens < num_tokens:
        # In turn, so that both kinds have about half of the tokens.
        if chatter is not None and batch % 2:
            rows = _conversations(model, tokenizer, chatter, row_seed(seed, batch))
        else:
            rows = _documents(model, tokenizer, row_seed(seed, batch))
        batch += 1
        for row, count in rows:
            if tokens < num_tokens:
                yield row
            tokens += count
        tokens += 1  # a base that ends every text at once gives no rows


def _documents(
    model: LanguageModel, tokenizer: EtudeTokenizer, seed: int
) -> Iterator[tuple[dict[str, Any], int]]:
    prompts = [[tokenizer.roles.document_id]] * ROWS
    for sample in _sampled(model, prompts, tokenizer.roles.stop_ids, seed):
        text = tokenizer.decode(sample.token_ids, skip_special_tokens=True)
        if text.strip():
            yield {"text": text}, len(sample.token_ids)


def _conversations(
    model: LanguageModel, tokenizer: EtudeTokenizer, chatter: Chatter, seed: int
) -> Iterator[tuple[dict[str, Any], int]]:
    begins = [_before_question(tokenizer, chatter)] * ROWS
    asked = _sampled(model, begins, chatter.stop_ids, seed)
    written = [tokenizer.decode(sample.token_ids, skip_special_tokens=True) for sample in asked]
    questions = [text for text, sample in zip(written, asked, strict=True) if text.strip() and _ended(sample)]
    if not questions:
        return
    prompts, fitting = [], []
    for text in questions:
        with suppress(InputError):  # a question that leaves no room for an answer is not used
            prompts.append(chatter.prompt([Message("user", text)], LONGEST).ids)
            fitting.append(text)
    if not fitting:
        return
    answered = _sampled(model, prompts, chatter.stop_ids, row_seed(seed, 1))
    for question, sample in zip(fitting, answered, strict=True):
        answer = tokenizer.decode(sample.token_ids, skip_special_tokens=True)
        if answer.strip() and _ended(sample):  # one that was cut would teach to end there
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            yield {"messages": turns}, len(sample.token_ids)


def _before_question(tokenizer: EtudeTokenizer, chatter: Chatter) -> list[int]:
    """Return the tokens that the template writes before the content of the first question."""
    one, other = (encode_prompt([Message("user", text)], tokenizer, chatter.template) for text in ("a", "0"))
    same = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))
    return one[:same]


def _ended(sample: Generation) -> bool:
    return sample.finish_reason == "eos"


def _sampled(
    model: LanguageModel, prompts: list[list[int]], stop_ids: frozenset[int], seed: int
) -> list[Generation]:
    room = model.config.max_position_embeddings - max(map(len, prompts))
    settings = SamplingSettings(temperature=1.0, max_new_tokens=max(1, min(LONGEST, room)))
    return generate(model, prompts, settings, stop_ids=stop_ids, seed=seed, at_context_end="stop")
