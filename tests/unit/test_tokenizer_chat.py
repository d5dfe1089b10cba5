"""Chat templates render as in transformers, and cannot do anything else.

Does not cover: encoding the rendered prompt (test_tokenizer_directory.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError
from coordinator.tokenizer import Tokenizer, load_tokenizer
from coordinator.tokenizer.chat_template import render_chat
from tests.support.tokenizer_files import (
    CHATS,
    byte_level_keys,
    byte_level_tokenizer_json,
    write_gguf,
)
from tests.support.transformers_answers import Theirs

CHATML = (
    "{%- for message in messages %}\n"
    "    {{- '<|im_start|>' + message['role'] + '\\n' + message.content | trim + '<|im_end|>\\n' }}\n"
    "{%- endfor %}\n"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
EVERYTHING = (
    "{% set ns = namespace(count=0, d=dict(a=1)) %}"
    "{%- for m in messages %}{% set ns.count = ns.count + 1 %}{% if m.role == 'system' %}{% continue %}{% endif %}\n"
    "   {% generation %}{{ m | tojson }}{{ m | tojson(indent=2) }}{% endgeneration %}\n"
    "{% endfor %}{{ ns.count }}{{ ns.d }}{{ tools is none }}{{ documents is none }}{{ undefined_name }}"
    "{{ unk_token }}|{{ pad_token }}{% for x in range(9) %}{% if x > 3 %}{% break %}{% endif %}{{ x }}{% endfor %}"
    "{{ 'é<>&' | tojson }}{{ messages | map(attribute='role') | join(',') }}"
)
CONFIG = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
HOSTILE = {
    "class of a string": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of a function": "{{ raise_exception.__globals__['json'] }}",
    "attr filter": "{{ ''|attr('__class__') }}{{ (''|attr('__class__')).x }}",
    "format string": "{{ '{0.__class__.__mro__}'.format('') + undefined.x }}",
    "jinja's own globals": "{{ lipsum.__globals__['os'].popen('id') }}",
    "self": "{{ self.__init__.__globals__ }}",
    "changing a message": "{{ messages.append(1) }}",
    "changing a dict": "{{ messages[0].update({'a': 1}) }}",
    "hiding an attribute in a namespace": "{% set ns = namespace(__class__=1) %}",
    "setting a hidden attribute": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "another template": "{% include '/etc/passwd' %}",
    "syntax": "{% if %}",
    "unknown filter": "{{ 1 | no_such_filter }}",
    "division by zero": "{{ 1 / 0 }}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "huge range": "{% for x in range(10 ** 9) %}{% endfor %}",
    "huge output": "{% for x in range(90000) %}{{ 'aaaaaaaaaa' * 1000 }}{% endfor %}",
    "not a text": "{{ messages[0].content + 1 }}",
    "lines in the message": "{{ raise_exception('one\ntwo') }}",
    "dict's attributes": "{{ dict.mro() }}",
}


def load(directory: Path, config: Mapping[str, Any], **files: str) -> Tokenizer:
    """Write a model directory and return our tokenizer."""
    (directory / "config.json").write_text('{"model_type": "llama"}')
    (directory / "tokenizer.json").write_text(byte_level_tokenizer_json())
    (directory / "tokenizer_config.json").write_text(json.dumps({**CONFIG, **config}))
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return load_tokenizer(directory)


def rendered(theirs: Theirs, place: Path, messages: Sequence[Mapping[str, str]]) -> str:
    """Return what transformers renders."""
    return str(theirs.ask("chat", place, messages, True))


@pytest.mark.parametrize("template", [CHATML, LLAMA_2, EVERYTHING])
@pytest.mark.parametrize("messages", CHATS)
def test_template_renders_as_in_transformers(
    template: str, messages: list[dict[str, str]], tmp_path: Path, theirs: Theirs
) -> None:
    """The same text, character for character."""
    ours = load(tmp_path, {"chat_template": template})
    assert ours.chat_prompt(messages) == rendered(theirs, tmp_path, messages)


@pytest.mark.parametrize("messages", CHATS)
def test_demo_model_chats_as_in_transformers(messages: list[dict[str, str]], demo_model: Path, theirs: Theirs) -> None:
    """A GGUF file's template comes from its metadata; the prompt's token ids agree too."""
    ours = load_tokenizer(demo_model)
    prompt = ours.chat_prompt(messages)
    assert prompt == rendered(theirs, demo_model / "model.gguf", messages)
    ids = theirs.ask("chat_ids", demo_model / "model.gguf", messages)
    assert ours.encode(prompt, add_special_tokens=False) == ids


def test_default_of_several_templates_is_taken(tmp_path: Path, theirs: Theirs) -> None:
    """tokenizer_config.json may name several."""
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": CHATML}]
    ours = load(tmp_path, {"chat_template": named})
    assert ours.chat_prompt(CHATS[0]) == rendered(theirs, tmp_path, CHATS[0])


def test_template_file_wins_over_the_config(tmp_path: Path, theirs: Theirs) -> None:
    """chat_template.jinja is where newer checkpoints keep it."""
    ours = load(tmp_path, {"chat_template": "old"}, chat_template__jinja=CHATML)
    assert ours.chat_prompt(CHATS[1]) == rendered(theirs, tmp_path, CHATS[1])


def test_templates_know_the_date() -> None:
    """Llama 3's template writes it."""
    assert render_chat("{{ strftime_now('%Y') }}", CHATS[0], {}) == str(datetime.now().year)


def test_model_without_template_says_so(tmp_path: Path) -> None:
    """--chat needs a template; the message names the model."""
    ours = load(tmp_path, {})
    with pytest.raises(InputError, match=f"{tmp_path.name}' has no chat template"):
        ours.chat_prompt(CHATS[0])


def test_gguf_without_template_says_so(tmp_path: Path) -> None:
    """The same for a GGUF file."""
    ours = load_tokenizer(write_gguf(tmp_path / "model.gguf", byte_level_keys("smollm")))
    with pytest.raises(InputError, match="no chat template"):
        ours.chat_prompt(CHATS[0])


def test_empty_conversation_is_refused(tmp_path: Path) -> None:
    """There is nothing to answer."""
    ours = load(tmp_path, {"chat_template": CHATML})
    with pytest.raises(InputError, match="at least one message"):
        ours.chat_prompt([])


def test_reason_of_the_template_reaches_the_person(tmp_path: Path) -> None:
    """What the template's author says is what the user reads."""
    ours = load(tmp_path, {"chat_template": LLAMA_2})
    with pytest.raises(InputError, match="Conversation roles must alternate"):
        ours.chat_prompt([{"role": "assistant", "content": "I first"}])


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_template_ends_in_one_line(attack: str) -> None:
    """Whatever a template tries, it is an InputError of one line, and nothing outside it changed."""
    messages = [{"role": "user", "content": "hi"}]
    with pytest.raises(InputError) as caught:
        render_chat(HOSTILE[attack], messages, {})
    assert "\n" not in str(caught.value)
    assert messages == [{"role": "user", "content": "hi"}]
