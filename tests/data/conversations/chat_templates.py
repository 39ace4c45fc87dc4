"""Chat templates of public models, written from their documented form, with what each must train."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SYSTEM = "Be brief."
FIRST, SECOND = "Fine, thanks.", "Good night!"
QUESTIONS = ("How are you?", "I am tired.")
WORDS = [SYSTEM, FIRST, SECOND, *QUESTIONS, "user assistant system model", "You are a helpful assistant."]


@dataclass(frozen=True)
class Case:
    """A template and what it must train for the answers FIRST and SECOND.

    ``answers`` is None, and ``refused`` a part of the message, where a conversation of two answers cannot be trained
    exactly. ``single`` is what is trained of one question and its answer FIRST, and None where that is refused.
    ``system`` is the part of the message for a conversation with a system turn; empty when it works.
    """

    name: str
    source: str
    specials: tuple[str, ...]
    answers: tuple[str, str] | None
    bos: str | None = None
    eos: str | None = None
    refused: str = ""
    single: str | None = ""
    system: str = ""
    stops: tuple[str, ...] = ()

    @property
    def trained_alone(self) -> str | None:
        if self.single != "":
            return self.single
        return self.answers[0] if self.answers else None


IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LOOP = "{% for m in messages %}"
CHATML = (
    LOOP + "{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def with_default(system: str) -> str:
    return (
        LOOP + "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
        f"{system}<|im_end|>\n' }}}}{{% endif %}}"
        "{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


QWEN3 = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for m in loop_messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + m['content'] %}"
    "{% else %}{% set content = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for m in loop_messages %}"
    "{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'+ m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA31 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
MISTRAL1 = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
MISTRAL3 = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}
"""
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = m['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
GEMMA3 = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
"""
PHI3 = (
    LOOP + "{% if m['role'] == 'system' %}{{'<|system|>\n' + m['content'] + '<|end|>\n'}}"
    "{% elif m['role'] == 'user' %}{{'<|user|>\n' + m['content'] + '<|end|>\n'}}"
    "{% elif m['role'] == 'assistant' %}{{'<|assistant|>\n' + m['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PHI3_FIRST = (
    "{{ bos_token }}"
    + LOOP
    + "{% if (m['role'] == 'user') %}{{'<|user|>' + '\n' + m['content'] + '<|end|>' + '\n' + "
    "'<|assistant|>' + '\n'}}{% elif (m['role'] == 'assistant') %}{{m['content'] + '<|end|>' + '\n'}}"
    "{% endif %}{% endfor %}"
)
PHI4 = (
    LOOP + "{% if (m['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' + m['content'] + '<|im_end|>'}}"
    "{% elif (m['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + m['content'] + '<|im_end|>'}}"
    "{% elif (m['role'] == 'assistant') %}{{'<|im_start|>assistant<|im_sep|>' + m['content'] + '<|im_end|>'}}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}\n{% if m['role'] == 'user' %}\n{{ '<|user|>\n' + m['content'] + eos_token }}\n"
    "{% elif m['role'] == 'system' %}\n{{ '<|system|>\n' + m['content'] + eos_token }}\n"
    "{% elif m['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + m['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
VICUNA = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set s = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set s = 'A chat between a curious user and an assistant.' %}"
    "{% endif %}{{ bos_token + s + ' ' }}{% for m in loop_messages %}"
    "{% if m['role'] == 'user' %}{{ 'USER: ' + m['content'].strip() + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + m['content'].strip() + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
FALCON = (
    "{% for m in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}"
    "{% if m['role'] == 'system' %}{{ 'System: ' + m['content'] }}"
    "{% elif m['role'] == 'user' %}{{ 'User: ' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{{ 'Falcon: ' + m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\nFalcon:' }}{% endif %}"
)
FALCON3 = (
    LOOP + "{% if m['role'] == 'system' %}{{ '<|system|>\n' + m['content'] + '\n' }}"
    "{% elif m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + '\n' }}"
    "{% elif m['role'] == 'assistant' %}{% if not loop.last %}{{ '<|assistant|>\n' + m['content'] + eos_token + '\n' }}"
    "{% else %}{{ '<|assistant|>\n' + m['content'] + eos_token }}{% endif %}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)
DEEPSEEK2 = (
    "{{ bos_token }}" + LOOP + "{% if m['role'] == 'user' %}{{ 'User: ' + m['content'] + '\n\n' }}"
    "{% elif m['role'] == 'assistant' %}{{ 'Assistant: ' + m['content'] + eos_token }}"
    "{% elif m['role'] == 'system' %}{{ m['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
DEEPSEEK3 = (
    "{% set ns = namespace(system_prompt='') %}{%- for m in messages %}{%- if m['role'] == 'system' %}"
    "{% set ns.system_prompt = m['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}"
    "{%- for m in messages %}{%- if m['role'] == 'user' %}{{'<｜User｜>' + m['content']}}{%- endif %}"
    "{%- if m['role'] == 'assistant' %}{{'<｜Assistant｜>' + m['content'] + '<｜end▁of▁sentence｜>'}}{%- endif %}"
    "{%- endfor -%}{% if add_generation_prompt %}{{'<｜Assistant｜>'}}{% endif %}"
)
DEEPSEEK_R1 = DEEPSEEK3.replace(
    "{{'<｜Assistant｜>' + m['content']",
    "{% set content = m['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}"
    "{% endif %}{{'<｜Assistant｜>' + content",
).replace("{{'<｜Assistant｜>'}}", "{{'<｜Assistant｜><think>\\n'}}")
TULU = (
    "{{ bos_token }}" + LOOP + "{% if m['role'] == 'system' %}{{ '<|system|>\n' + m['content'] + '\n' }}"
    "{% elif m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + '\n' }}"
    "{% elif m['role'] == 'assistant' %}{% if not loop.last %}"
    "{{ '<|assistant|>\n'  + m['content'] + eos_token + '\n' }}"
    "{% else %}{{ '<|assistant|>\n'  + m['content'] + eos_token }}{% endif %}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)
HARMONY = """{{- "<|start|>system<|message|>You are ChatGPT.\\nCurrent date: " + strftime_now("%Y-%m-%d") + "\\n\\n" }}
{{- "Reasoning: medium\\n\\n# Valid channels: analysis, commentary, final.<|end|>" }}
{%- if messages[0].role == "system" %}
    {%- set developer_message = messages[0].content %}
    {%- set loop_messages = messages[1:] %}
    {{- "<|start|>developer<|message|># Instructions\\n\\n" + developer_message + "\\n\\n<|end|>" }}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- for message in loop_messages -%}
    {%- if message.role == 'assistant' -%}
        {%- if loop.last and not add_generation_prompt %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|return|>" }}
        {%- else %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|end|>" }}
        {%- endif %}
    {%- elif message.role == 'user' -%}
        {{- "<|start|>user<|message|>" + message.content + "<|end|>" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|start|>assistant
{%- endif -%}"""
COMMAND_R = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set s = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set s = false %}{% endif %}"
    "{% if s != false %}{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + s + '<|END_OF_TURN_TOKEN|>' }}{% endif %}"
    "{% for m in loop_messages %}{% set content = m['content'] %}"
    "{% if m['role'] == 'user' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}"
    "{% elif m['role'] == 'assistant' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'  + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)
COMMAND_TOKENS = (
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
)
COMMAND_R7B = (
    "{{ bos_token }}{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|>' }}"
    "{% if m['role'] == 'assistant' %}"
    "{{ '<|CHATBOT_TOKEN|><|START_RESPONSE|>' + m['content'] + '<|END_RESPONSE|>' }}"
    "{% else %}{{ ('<|USER_TOKEN|>' if m['role'] == 'user' else '<|SYSTEM_TOKEN|>') + m['content'] }}{% endif %}"
    "{{ '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)
GLM4 = (
    "[gMASK]<sop>{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
GRANITE = (
    LOOP
    + "{%- if m['role'] == 'system' %}\n{{ '<|start_of_role|>system<|end_of_role|>' + m['content'] + '<|end_of_text|>\n' }}"
    "{%- elif m['role'] == 'user' %}\n{{ '<|start_of_role|>user<|end_of_role|>' + m['content'] + '<|end_of_text|>\n' }}"
    "{%- elif m['role'] == 'assistant' %}\n{{ '<|start_of_role|>assistant<|end_of_role|>'  + m['content'] + '<|end_of_text|>\n' }}"
    "{%- endif %}{%- if loop.last and add_generation_prompt %}\n{{- '<|start_of_role|>assistant<|end_of_role|>' }}"
    "{%- endif %}{%- endfor %}"
)
STARCHAT = (
    LOOP + "{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
SMOLLM3 = """{{- "<|im_start|>system\\nToday: " + strftime_now("%d %B %Y") + "<|im_end|>\\n" }}
{%- for message in messages -%}
    {%- if message.role == "user" -%}
        {{ "<|im_start|>user\\n" + message.content + "<|im_end|>\\n" }}
    {%- elif message.role == "assistant" -%}
        {% generation %}
        {{- "<|im_start|>assistant\\n" + message.content.lstrip("\\n") + "<|im_end|>\\n" }}
        {%- endgeneration %}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ "<|im_start|>assistant\\n" }}
{%- endif -%}"""
MARKED = (
    LOOP + "{% if m['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
PHI = ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
IM_END = (f"{FIRST}<|im_end|>", f"{SECOND}<|im_end|>")
BRACKETS = ("<s>", "</s>")

CASES = [
    Case("chatml", CHATML, IM, IM_END, eos="<|im_end|>"),
    Case("yi", CHATML, ("<|startoftext|>", *IM), IM_END, bos="<|startoftext|>", eos="<|im_end|>"),
    Case("smollm2", with_default("You are SmolLM."), IM, IM_END, bos="<|im_start|>", eos="<|im_end|>"),
    Case("qwen2", with_default("You are a helpful assistant."), IM, IM_END, eos="<|im_end|>"),
    Case(
        "qwen3",
        QWEN3,
        IM,
        None,
        eos="<|im_end|>",
        refused="changes when the conversation continues",
        single=f"<think>\n\n</think>\n\n{FIRST}<|im_end|>",
    ),
    Case("llama2", LLAMA2, BRACKETS, (f" {FIRST} </s>", f" {SECOND} </s>"), "<s>", "</s>"),
    Case("llama3", LLAMA3, LLAMA, (f"{FIRST}<|eot_id|>", f"{SECOND}<|eot_id|>"), LLAMA[0], "<|eot_id|>"),
    Case("llama3.1", LLAMA31, LLAMA, (f"{FIRST}<|eot_id|>", f"{SECOND}<|eot_id|>"), LLAMA[0], "<|eot_id|>"),
    Case(
        "mistral1",
        MISTRAL1,
        BRACKETS,
        (f"{FIRST}</s>", f"{SECOND}</s>"),
        "<s>",
        "</s>",
        system="must alternate",
    ),
    Case(
        "mistral3",
        MISTRAL3,
        (*BRACKETS, "[INST]", "[/INST]"),
        (f" {FIRST}</s>", f" {SECOND}</s>"),
        "<s>",
        "</s>",
        system="turn",
    ),
    Case(
        "gemma",
        GEMMA,
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        (f"{FIRST}<end_of_turn>", f"{SECOND}<end_of_turn>"),
        "<bos>",
        "<eos>",
        system="System role not supported",
    ),
    Case(
        "gemma3",
        GEMMA3,
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        (f"{FIRST}<end_of_turn>", f"{SECOND}<end_of_turn>"),
        "<bos>",
        "<eos>",
    ),
    Case("phi3", PHI3, PHI, (f"{FIRST}<|end|>", f"{SECOND}<|end|>"), "<s>", "<|endoftext|>"),
    Case("phi3-first", PHI3_FIRST, PHI, (f"{FIRST}<|end|>", f"{SECOND}<|end|>"), "<s>", "<|endoftext|>"),
    Case("phi4", PHI4, (*IM, "<|im_sep|>"), IM_END, "<|endoftext|>", "<|im_end|>"),
    Case("zephyr", ZEPHYR, BRACKETS, (f"{FIRST}</s>", f"{SECOND}</s>"), "<s>", "</s>"),
    Case("vicuna", VICUNA, BRACKETS, (f" {FIRST}</s>", f" {SECOND}</s>"), "<s>", "</s>"),
    Case(
        "falcon",
        FALCON,
        ("<|endoftext|>",),
        None,
        eos="<|endoftext|>",
        refused="no token that ends an answer",
        single=None,
    ),
    Case(
        "glm4",
        GLM4,
        ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "[gMASK]", "<sop>"),
        (f"\n{FIRST}<|user|>", f"\n{SECOND}<|user|>"),
        eos="<|endoftext|>",
        stops=("<|endoftext|>", "<|user|>"),
    ),
    Case(
        "glm4-without-stops",
        GLM4,
        ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "[gMASK]", "<sop>"),
        None,
        eos="<|endoftext|>",
        refused="no token that ends an answer",
        single=None,
    ),
    Case(
        "command-r7b",
        COMMAND_R7B,
        ("<BOS_TOKEN>", *COMMAND_TOKENS, "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        (
            f"<|START_RESPONSE|>{FIRST}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
            f"<|START_RESPONSE|>{SECOND}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
        ),
        "<BOS_TOKEN>",
        "<|END_OF_TURN_TOKEN|>",
    ),
    Case(
        "falcon3",
        FALCON3,
        ("<|endoftext|>",),
        (f"{FIRST}<|endoftext|>", f"{SECOND}<|endoftext|>"),
        eos="<|endoftext|>",
    ),
    Case(
        "deepseek2",
        DEEPSEEK2,
        DEEPSEEK[:2],
        (f" {FIRST}{DEEPSEEK[1]}", f" {SECOND}{DEEPSEEK[1]}"),
        DEEPSEEK[0],
        DEEPSEEK[1],
    ),
    Case(
        "deepseek3",
        DEEPSEEK3,
        DEEPSEEK,
        (f"{FIRST}{DEEPSEEK[1]}", f"{SECOND}{DEEPSEEK[1]}"),
        DEEPSEEK[0],
        DEEPSEEK[1],
    ),
    Case(
        "deepseek-r1",
        DEEPSEEK_R1,
        DEEPSEEK,
        None,
        DEEPSEEK[0],
        DEEPSEEK[1],
        refused="generation prompt differs",
        single=None,
    ),
    Case(
        "olmo2",
        TULU,
        ("<|endoftext|>",),
        (f"{FIRST}<|endoftext|>", f"{SECOND}<|endoftext|>"),
        "<|endoftext|>",
        "<|endoftext|>",
    ),
    Case(
        "gpt-oss",
        HARMONY,
        ("<|startoftext|>", "<|return|>", "<|start|>", "<|message|>", "<|channel|>", "<|end|>"),
        (
            f"<|channel|>final<|message|>{FIRST}<|end|>",
            f"<|channel|>final<|message|>{SECOND}<|return|>",
        ),
        "<|startoftext|>",
        "<|return|>",
        single=f"<|channel|>final<|message|>{FIRST}<|return|>",
    ),
    Case(
        "command-r",
        COMMAND_R,
        (
            "<BOS_TOKEN>",
            "<|START_OF_TURN_TOKEN|>",
            "<|END_OF_TURN_TOKEN|>",
            "<|USER_TOKEN|>",
            "<|CHATBOT_TOKEN|>",
            "<|SYSTEM_TOKEN|>",
        ),
        (f"{FIRST}<|END_OF_TURN_TOKEN|>", f"{SECOND}<|END_OF_TURN_TOKEN|>"),
        "<BOS_TOKEN>",
        "<|END_OF_TURN_TOKEN|>",
    ),
    Case(
        "granite",
        GRANITE,
        ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
        (f"{FIRST}<|end_of_text|>", f"{SECOND}<|end_of_text|>"),
        "<|end_of_text|>",
        "<|end_of_text|>",
    ),
    Case("starchat", STARCHAT, PHI[1:], (f"{FIRST}<|end|>", f"{SECOND}<|end|>"), eos="<|endoftext|>"),
    Case("smollm3", SMOLLM3, IM, IM_END, eos="<|im_end|>"),
    Case("marked", MARKED, IM, IM_END, eos="<|im_end|>"),
]
BY_NAME = {case.name: case for case in CASES}


@cache
def backend_json(specials: tuple[str, ...], kind: str) -> str:
    """Return a small tokenizer: bytes with merges, like GPT-2's; or pieces with ``▁`` for blanks, like Llama's.

    "legacy" puts ``▁`` before the text when it normalises it, in each part between special tokens; "normalized" finds
    the special tokens after that.
    """
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE(byte_fallback=False, unk_token="<unk>"))
        if kind == "pieces":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        else:
            tokenizer.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            )
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
        alphabet = [chr(code) for code in range(32, 127)] + ["\n", "▁", "｜"]
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + 60,
        initial_alphabet=alphabet,
        special_tokens=[] if kind == "bytes" else ["<unk>"],
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=kind == "normalized") for token in specials]
    )
    return str(tokenizer.to_str())


def save_model_tokenizer(folder: Path, case: Case, kind: str = "bytes") -> Path:
    """Write the tokenizer files of a published model with the template of a case."""
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(backend_json(case.specials, kind))
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=case.bos,
        eos_token=case.eos,
        chat_template=case.source,
        clean_up_tokenization_spaces=False,
    )
    theirs.save_pretrained(folder)
    if case.stops:
        stops = [backend.token_to_id(token) for token in case.stops]
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
    return folder
