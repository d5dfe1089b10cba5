"""Which keys does README.md promise of a verb's `--json`, and which are in a document?"""

from __future__ import annotations

import re
from typing import Any

from tests.support.source_files import REPOSITORY


def documented(verb: str, form: str = "") -> set[str]:
    """Return the keys that README.md names for a verb. Args: form: the words after it, where it has several forms."""
    start = f"| `{verb}`{form} |"
    row = next(line for line in (REPOSITORY / "README.md").read_text().splitlines() if line.startswith(start))
    return set(re.findall(r"`(\w+)`", row.partition("|")[2].partition("|")[2]))


def keys(value: Any) -> set[str]:
    """Return every key of a document, at every depth."""
    if isinstance(value, dict):
        return set(value) | {key for part in value.values() for key in keys(part)}
    return {key for part in value for key in keys(part)} if isinstance(value, list) else set()
