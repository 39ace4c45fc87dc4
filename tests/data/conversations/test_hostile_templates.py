"""Chat templates of strangers: bounded in time, memory and output, and without a way out of the sandbox."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.conversations.conversation import Message
from etude.data.conversations.template import CHATML, TEMPLATE_DATE, ChatTemplate
from etude.errors import InputError

TURNS = [Message("user", "Hi"), Message("assistant", "Hello")]
DOUBLING = "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = %s %}{% endfor %}{{ ns.x }}"
TOO_MUCH = [
    "{{ 'a' * 10000000000 }}",
    "{{ [1] * 10000000000 }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ 'a' | center(10000000000) }}",
    "{{ 'a'.ljust(10000000000) }}",
    "{{ '{:10000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 10000000000) }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%*d' % (10000000000, 1) }}",
    "{{ '%10000000000d' | format(1) }}",
    "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
    "{{ ('a' * 1000000).join('b' * 1000000) }}",
    "{{ ('\\t' * 1000000).expandtabs(1000000) }}",
    "{{ ('\\n' * 1000000) | indent(1000000) }}",
    "{{ [1] | batch(10000000000, 'x') | list }}",
    "{{ [1] | slice(10000000000) | list }}",
    "{{ ('x' * 10000000).rfind('y' * 1000000) }}",
    "{{ 1 | round(1000000000) }}",
    "{{ [[1]] | tojson(indent=10000000000) }}",
    "{% for i in range(99999) %}{{ 'a' * 10000 }}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999999999) %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% set x %}{% for i in range(99999) %}{{ 'a' * 10000 }}{% endfor %}{% endset %}",
    DOUBLING.replace("%s", "ns.x + ns.x"),
    DOUBLING.replace("%s", "ns.x ~ ns.x"),
    DOUBLING.replace("%s", "[ns.x, ns.x]"),
    DOUBLING.replace("%s", "{'a': ns.x, 'b': ns.x}"),
    DOUBLING.replace("%s", "[ns.x, ns.x] | join('')"),
    DOUBLING.replace("%s", "ns.x % ns.x").replace("'ab'", "'%s%s'"),
    "{% set ns = namespace(x=3) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{{ '((((' * 1000 }}" * 100_000,
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
]
WAYS_OUT = [
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.append({}) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{{ (messages | attr('__class__')).x }}",
    "{{ raise_exception.__globals__ }}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{{ namespace(__init__=1) }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ lipsum(5) }}",
    "{{ [1, 2, 3] | random }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'x' %}",
    "{% if %}",
    "{% generation %}",
    "{{ raise_exception('roles must alternate') }}",
]


def rendered(source: str) -> str | None:
    """Return the text; None where the template is refused, which takes one line."""
    reason = ""
    try:
        return ChatTemplate(source).render(TURNS)
    except InputError as error:
        reason = str(error)
    assert "\n" not in reason
    return None


@pytest.mark.parametrize("source", TOO_MUCH, ids=lambda source: source[:60])
def test_a_template_that_asks_for_too_much_is_stopped(source: str) -> None:
    start = time.thread_time()
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as error:
            ChatTemplate(source).render(TURNS)
        assert tracemalloc.get_traced_memory()[1] < 1 << 29
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert time.thread_time() - start < 20


@pytest.mark.parametrize("source", WAYS_OUT, ids=lambda source: source[:60])
def test_a_template_has_no_way_out(source: str) -> None:
    """What is unsafe is either refused or undefined, which renders as nothing."""
    assert rendered(source) in ("", None)
    assert [Message("user", "Hi"), Message("assistant", "Hello")] == TURNS


@given(st.text(alphabet="{}%#-+ abifornesmg().|[]'\"0123=~\n_", max_size=80))
def test_any_source_renders_or_is_refused_in_one_line(source: str) -> None:
    rendered(source)


def test_today_is_the_same_on_every_day() -> None:
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}")
    assert template.render(TURNS) == TEMPLATE_DATE.strftime("%d %b %Y") == "26 Jul 2024"


def test_a_template_has_what_transformers_offers() -> None:
    source = """{%- for m in messages %}
    {%- if loop.index0 == 1 %}{% break %}{% endif %}
    {{- m | tojson }}{{ {'ü': [1]} | tojson(indent=1) }}{{ '<' | tojson }}
{%- endfor %}{{ tools is none }}{{ bos_token }}{{ dict(a=1).a }}{{ missing }}"""
    text = ChatTemplate(source, {"bos_token": "<s>"}).render(TURNS)
    assert text == '{"role": "user", "content": "Hi"}{\n "ü": [\n  1\n ]\n}"<"True<s>1'


@given(st.lists(st.text(min_size=1), min_size=1, max_size=3))
def test_contents_are_written_as_they_are(contents: list[str]) -> None:
    turns = [Message("user", content) for content in contents]
    expected = "".join(f"<|im_start|>user\n{content}<|im_end|>\n" for content in contents)
    assert CHATML.render(turns) == expected
    assert CHATML.render(turns, add_generation_prompt=True) == expected + "<|im_start|>assistant\n"
