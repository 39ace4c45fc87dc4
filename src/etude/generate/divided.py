"""Generate with a network that is divided among ranks: every rank runs it for each token, and draws the same one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from etude.generate.sampling import SamplingSettings, choose, row_seed
from etude.model.language_model import LanguageModel
from etude.train.divided import release_gathered
from etude.train.parallel import Ranks


@torch.no_grad()  # not inference mode, in which parameters cannot be gathered
def continue_together(
    model: LanguageModel,
    prompt: Sequence[int],
    settings: SamplingSettings,
    stop_ids: Collection[int],
    seed: int,
    ranks: Ranks,
) -> list[int]:
    """Return the tokens that follow ``prompt``; fewer where the context ends. All ranks must call this.

    The seed is that of the first row of :func:`etude.generate.engine.generate`. Rank 0's logits count, so that rounding
    on another kind of machine cannot part the ranks.

    Raises:
        NotFinite: the predictions are not finite.
    """
    longest = model.config.max_position_embeddings
    context = list(prompt[-(longest - 1) :])
    generator = torch.Generator().manual_seed(row_seed(seed, 0))
    device = model.unembedding()[0].device
    cache = model.new_cache(1, min(longest, len(context) + settings.max_new_tokens))
    new, seen, unread = list[int](), set(prompt), context
    try:
        while len(new) < settings.max_new_tokens and len(context) + len(new) <= longest:
            hidden = model.hidden(torch.tensor([unread], device=device), cache=cache)
            logits = ranks.of_first(model.head(hidden[:, -1])[0].float().cpu().contiguous())
            token, _ = choose(logits.numpy(), settings, generator, seen=seen)
            if token in stop_ids:
                break
            new.append(token)
            seen.add(token)
            unread = [token]
    finally:
        release_gathered(model)
    return new
