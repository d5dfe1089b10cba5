"""Models whose tokenizer or chat template does harm to whoever reads or runs it. Small, in files of their own.

Does not cover: what is expected of who reads them (tests/unit/test_tokenizer_apart.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.tokenizer_files import byte_level_tokenizer_json

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
TEMPLATES = {
    "loops for ever": ENDLESS,
    "loops while constants are folded": "{% if false %}{{ 9 ** (9 ** (9 ** 9)) }}{% endif %}",
    "allocates while constants are folded": "{% if false %}{{ [0] * 10 ** 11 }}{% endif %}{{ 1 / 0 }}",
    "allocates": "{% set ns = namespace(t='a') %}{% for x in range(60) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
}
"""Each ends its process, or fails, within its limits."""


PANICS: dict[str, dict[str, Any]] = {
    "an empty table of characters": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAA=="}},
    "no table of characters": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////wAAAAA="}},
    "a replacement of nothing": {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"}},
}
"""Parts of a tokenizer.json on which the library panics, while it reads or encodes: no `except Exception` sees that."""


def panicking_json(name: str) -> str:
    """Return a tokenizer.json with one of PANICS."""
    return json.dumps(json.loads(byte_level_tokenizer_json()) | PANICS[name])


def write_model(directory: Path, *, template: str = "", tokenizer_json: str = "") -> Path:
    """Write a directory with a tokenizer, and return it."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text('{"model_type": "llama"}')
    (directory / "tokenizer.json").write_text(tokenizer_json or byte_level_tokenizer_json())
    config = {"chat_template": template} if template else {}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory
