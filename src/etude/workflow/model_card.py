"""The model card in every checkpoint: what the model is, what it was trained on, how to use it."""

from __future__ import annotations

from etude.model.cost import count_parameters
from etude.plan.plan import Plan
from etude.run import RunFolder


def model_card(plan: Plan, run: RunFolder, step: int) -> str:
    """Return the README.md of the checkpoint at ``step``, in Hugging Face's format."""
    settings, data = plan.settings, plan.data
    library = plan.model.family.library
    folder = "path/to/this/folder"
    usage = (
        "from transformers import pipeline\n\n"
        f'write = pipeline("text-generation", "{folder}")\n'
        'print(write("Once", max_new_tokens=100)[0]["generated_text"])'
        if library == "transformers"
        else f'import etude\n\nlanguage = etude.load("{folder}")\nprint(language.generate())'
    )
    sources = ", ".join(f"`{source}`" for source in settings.data.sources)
    scope = "" if plan.scope is None else f"; the loss counts only {plan.scope.name}"
    return f"""---
library_name: {library}
pipeline_tag: text-generation
tags:
- etude
---

# {run.name}

A {plan.model.model_type} language model with {count_parameters(plan.model).total:,} parameters, trained from
random weights with [Etude](https://pypi.org/project/etude/).

- Text: {sources}; {data.train.source_bytes:,} bytes ({data.train.num_tokens:,} tokens) to learn from,
  {data.validation.source_bytes:,} bytes held out.
- Tokenizer: {settings.tokenizer.kind}, {data.tokenizer.vocab_size:,} tokens.
- Training: {step:,} steps of {settings.train.batch_rows} rows of {settings.train.context} tokens,
  seed {settings.run.seed}{scope}.

It was trained on nothing but this text and is small: it continues text in the style of its training text, and
knows nothing else.

```python
{usage}
```

The tokenizer begins a text with `{data.tokenizer.roles.document}`, as training did. A prompt should not end in a
space: most words have the space before them in their token.
"""
