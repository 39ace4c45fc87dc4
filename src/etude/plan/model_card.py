"""The model card in every checkpoint: what the model is, what it was trained on, how to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.model.cost import count_parameters
from etude.plan.plan import Plan
from etude.pretrained.facts import BaseFacts, recorded_facts
from etude.pretrained.source_names import HUB
from etude.run import RunFolder
from etude.run.gain_and_cost import Balance
from etude.untrusted import one_line


def model_card(
    plan: Plan, run: RunFolder, step: int, manifest: Mapping[str, Any], best: Balance | None = None
) -> str:
    """Return the README.md of the checkpoint at ``step``, in Hugging Face's format.

    The ``manifest`` of the run states its base model, if it has one. ``best`` is the step up to here that gained most
    for its cost, of a run that compares them.
    """
    settings, data, base = plan.settings, plan.data, recorded_facts(manifest)
    library = plan.model.family.library
    folder = "path/to/this/folder"
    usage = (
        "from transformers import pipeline\n\n"
        f'write = pipeline("text-generation", "{folder}")\n'
        'print(write("Once", max_new_tokens=100)[0]["generated_text"])'
        if library == "transformers"
        else f'import etude\n\nlanguage = etude.load("{folder}")\nprint(language.generate())'
    )
    sources = ", ".join(map(_code, settings.data.sources))
    scope = "" if plan.scope is None else f"; the loss counts only {plan.scope.name}"
    return f"""---
{_head_of_base(base)}library_name: {"peft" if plan.model.adapter else library}
pipeline_tag: text-generation
tags:
- etude
---

# {run.name}

{_kind(plan)} language model with {count_parameters(plan.model).total:,} parameters, trained from
{_beginning(base)} with [Etude](https://pypi.org/project/etude/).

- Text: {sources}; {data.train.source_bytes:,} bytes ({data.train.num_tokens:,} tokens) to learn from,
  {data.validation.source_bytes:,} bytes held out.
- Tokenizer: {one_line(settings.tokenizer.kind)}, {data.tokenizer.vocab_size:,} tokens.
- Training: {step:,} steps of {settings.train.batch_rows} rows of {settings.train.context} tokens,
  seed {settings.run.seed}{scope}.
{_best_step(best)}
{_what_it_knows(base)}

```python
{usage}
```

The tokenizer begins a text with {_code(data.tokenizer.roles.document)}, as training did. A prompt should not end in a
space: most words have the space before them in their token.
"""


def with_tuning(card: str, record: Mapping[str, Any]) -> str:
    """Return a model card with what tuning gained and cost, from a line of tuning.jsonl; it replaces an earlier one.

    A line of another form changes nothing.
    """
    begin, end = "<!-- tuning: begin -->", "<!-- tuning: end -->"
    try:
        section = _tuning(record)
    except (KeyError, TypeError, ValueError, IndexError):
        return card
    before, _, rest = card.partition(begin)
    after = rest.partition(end)[2] if rest else ""
    return f"{before.rstrip()}\n\n{begin}\n{section}{end}\n{after.lstrip()}"


def _tuning(record: Mapping[str, Any]) -> str:
    base, verdict, pairs = record["base"], record["verdict"], record.get("pairs")
    costs = [
        f"- Bits per byte on {one_line(text['name'])}: {text['base']:.3f} before, {text['tuned']:.3f} after "
        f"(95 % interval of the rise {text['rise']['low']:+.3f} to {text['rise']['high']:+.3f})."
        for text in record["texts"]
    ]
    costs += [
        f"- {one_line(probe['name'])}: {_share(probe['base'])} of {int(probe['items'])} items right before, "
        f"{_share(probe['tuned'])} after (95 % interval of the change {probe['change']['low']:+.2f} to "
        f"{probe['change']['high']:+.2f}; chance {probe['chance']:.2f})."
        for probe in record.get("probes", [])
    ]
    if record.get("probes_dropped") is True:
        costs.append("- General abilities were not asked, for want of time.")
    lines = [
        "## What tuning gained and cost",
        "",
        f"Base: {_code(base['source'])} (hash `{one_line(base['hash'])}`). At step {int(record['step']):,}, on "
        f"{int(record['questions']['asked']):,} held-out {'pairs' if pairs else 'questions'}: "
        f"{one_line(verdict['sentence'])}.",
        "",
        *(_pair_rows(pairs) if pairs else _system_rows(record)),
        "",
        *costs,
    ]
    return "\n".join(lines) + "\n"


def _system_rows(record: Mapping[str, Any]) -> list[str]:
    systems, number = record["systems"], int(record["best_examples"])
    prompted = next(system for system in systems if system["examples"] == number)
    named = [("base", systems[0]), (f"base, {number} examples", prompted), ("this model", systems[-1])]
    return [
        "| | loss (nats per token) | right answers | ended by itself |",
        "|---|---|---|---|",
        *(
            f"| {name} | {system['loss']['value']:.3f} | {_share(system['exact'])} | {_share(system['ended'])} |"
            for name, system in named
            if number or not name.endswith("examples")
        ),
    ]


def _pair_rows(pairs: Mapping[str, Any]) -> list[str]:
    named = zip(("base", "this model"), pairs["models"], strict=True)
    return [
        "| | chosen answer more probable | chosen (nats per token) | rejected (nats per token) |",
        "|---|---|---|---|",
        *(
            f"| {name} | {_share(model['won'])} | {model['chosen']['value']:.3f} | {model['rejected']['value']:.3f} |"
            for name, model in named
        ),
    ]


def _share(estimate: Mapping[str, Any] | None) -> str:
    return "" if estimate is None else f"{estimate['value']:.2f}"


def _best_step(best: Balance | None) -> str:
    return "" if best is None else f"- Best step up to here: {best.step:,}. Since the first one, {best}.\n"


def _kind(plan: Plan) -> str:
    adapter, family = plan.model.adapter, plan.model.model_type
    return f"A {family}" if adapter is None else f"An adapter (LoRA, rank {adapter.rank}) of a {family}"


def _code(text: str) -> str:
    """Return a text of any origin as code in Markdown, on one line."""
    return "`" + one_line(text).replace("`", "'") + "`"


def _head_of_base(base: BaseFacts | None) -> str:
    """Return the lines of the card's head that state the base model and its licence, which holds for its children."""
    if base is None:
        return ""
    source = base.source
    name = source.removeprefix(HUB).partition("@")[0] if source.startswith(HUB) else Path(source).name
    return f"license: {base.licence_identifier}\nbase_model: {json.dumps(name)}\n"


def _beginning(base: BaseFacts | None) -> str:
    if base is None:
        return "random weights"
    step = "" if base.step is None else f" at step {base.step:,}"
    return f"the weights of {_code(base.source)}{step} (hash `{base.hash}`)"


def _what_it_knows(base: BaseFacts | None) -> str:
    if base is None:
        return (
            "It was trained on nothing but this text and is small: it continues text in the style of its training "
            "text, and\nknows nothing else."
        )
    rounding = f" Its weights were rounded before ({base.rounding})." if base.rounding else ""
    return f"What the base model was trained on is for its own card to say.{rounding}"
