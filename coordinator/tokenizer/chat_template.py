"""Renders a model's chat template, which is a program from a stranger, inside a sandbox.

Covers: what transformers gives a template: trimmed blocks, loop controls, raise_exception, strftime_now,
tojson, the generation block. The sandbox lets it reach no Python internals and change nothing it is given.
Does not cover: a template that loops or takes memory without end, which the kernel ends with its process
(nursery_program.py); files and tokens (hf_directory.py, gguf_vocab.py).
"""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from common.errors import InputError

MAX_PROMPT_CHARACTERS = 1 << 24
"""Longest rendering that is taken: far beyond any model's context, far below this machine's memory."""
MAX_REASON_CHARACTERS = 200
_USUAL = (
    "{% set ns = namespace(n=0) %}{% for m in messages %}{{ '\\n' + m['content'] | trim }}{% set ns.n = 1 %}"
    "{% endfor %}{{ strftime_now('%d %b %Y') }}{{ messages | tojson(indent=1) }}"
)
"""What templates are made of, so that all that Python reads for them is there."""


def render_chat(template: str, messages: Sequence[Mapping[str, str]], special_tokens: Mapping[str, str]) -> str:
    """Return the prompt for the assistant's next message.

    Args: special_tokens: names the template may use, e.g. bos_token, and the tokens' texts.
    Raises: InputError: no messages, or the template fails on them, whatever it does.
    """
    if not messages:
        raise InputError("a chat needs at least one message")
    plain = [{str(key): str(value) for key, value in message.items()} for message in messages]
    try:
        compiled = _compiled(template)
        pieces = compiled.generate(
            **special_tokens, messages=plain, tools=None, documents=None, add_generation_prompt=True
        )
        return _join_within_limit(pieces)
    except InputError:
        raise
    except Exception as error:  # A stranger's program can raise anything at all.
        lines = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"the model's chat template refuses this chat: {lines[0][:MAX_REASON_CHARACTERS]}") from error


def _join_within_limit(pieces: Any) -> str:
    rendered: list[str] = []
    character_count = 0
    for piece in pieces:
        rendered.append(piece)
        character_count += len(piece)
        if character_count > MAX_PROMPT_CHARACTERS:
            raise InputError(f"the model's chat template writes more than {MAX_PROMPT_CHARACTERS} characters")
    return "".join(rendered)


@lru_cache(maxsize=1)
def be_ready() -> None:
    """Have all there that a template may make Python look for in files: from now on none may be opened."""
    import jinja2.constants
    import jinja2.debug  # noqa: F401 - for who imports it later

    time.localtime()
    for encoding in ("unicode_escape", "utf-8", "ascii", "latin-1"):
        codecs.lookup(encoding)
    _environment().from_string(_USUAL).render(messages=[{"role": "user", "content": "a"}])


@lru_cache(maxsize=2)
def _compiled(template: str) -> jinja2.Template:
    return _environment().from_string(template)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "namespace": _GuardedNamespace,
        "dict": _make_dict,
    }
    return environment


def _raise_exception(message: object) -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _strftime_now(time_format: str) -> str:
    return datetime.now().strftime(time_format)


def _make_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    """Stand in for the class `dict`, whose attributes are not a template's business."""
    return dict(*args, **kwargs)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike jinja's own filter: no HTML escapes, which a model has never seen."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _GuardedNamespace(Namespace):
    """A namespace that stores no underscored name: jinja would read it back as an attribute."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *values = args
        attributes = dict(*values, **kwargs)
        for name in attributes:
            _refuse_underscore(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold '{name}'")


class _GenerationBlock(Extension):
    """`{% generation %}...{% endgeneration %}` marks the assistant's words for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012 - jinja declares it as an instance's

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller: Callable[[], str]) -> str:
        return caller()
