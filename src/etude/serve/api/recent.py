"""The tokens of the last answers, and where the studio shows what the model computed for them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any
from urllib.parse import urlencode

from etude.messages import command
from etude.serve.api.call import Call
from etude.serve.api.logprobs import chat_logprobs
from etude.serve.api.problem import Problem
from etude.untrusted import shown

MOST_ANSWERS = 200
_TOKENS = "\ue000"
"""The studio's mark of a passage that is given as tokens (studio/src/parts/tokens.ts)."""


class RecentAnswers:
    """The last ``MOST_ANSWERS`` answers by id. ``studio``: the address of a studio that shows the same sources."""

    def __init__(self, studio: str | None = None) -> None:
        self.studio = None if studio is None else studio.split("#")[0].rstrip("/")
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()
        """Each as JSON, made when it ends, so that no model is held by it."""

    def keep(self, call: Call) -> None:
        """Keep an answer that has ended, and forget the oldest."""
        self._kept[call.id] = self._value(call)
        while len(self._kept) > MOST_ANSWERS:
            self._kept.popitem(last=False)

    def read(self, name: str) -> dict[str, Any]:
        """Return an answer. Raises Problem if it is not kept."""
        if name not in self._kept:
            raise Problem(
                f"there is no answer {shown(name)}: the last {MOST_ANSWERS} are kept",
                404,
                code="answer_not_found",
            )
        return self._kept[name]

    def _value(self, call: Call) -> dict[str, Any]:
        served = call.served
        base, _, step = served.version.partition("@")
        choices = []
        for choice in call.choices:
            ids = [*choice.prompt, *(predicted.token for predicted in choice.tokens)]
            selected = {
                "run": base,
                **({"s": step} if step else {}),
                "p": str(max(len(choice.prompt) - 1, 0)),
                "text": _TOKENS + ",".join(map(str, ids)),
            }
            place = f"#/predictions?{urlencode(selected)}"
            choices.append(
                {
                    "index": choice.index,
                    "text": choice.text,
                    "prompt_token_ids": list(choice.prompt),
                    "token_ids": [predicted.token for predicted in choice.tokens],
                    "logprobs": chat_logprobs(served, choice.tokens)["content"],
                    "seed": choice.seed,
                    "finish_reason": choice.finish_reason,
                    "studio": f"{self.studio}/{place}" if self.studio else place,
                }
            )
        return {
            "id": call.id,
            "model": served.name,
            "version": served.version,
            "folder": str(served.folder),
            "open_with": command("studio", served.source),
            "choices": choices,
        }
