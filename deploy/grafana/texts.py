"""What does each panel teach a newcomer?

Covers: reading the texts that lie in texts/. Does not cover: what is drawn (mesh_dashboard.py and its neighbours).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent / "texts"


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """What a newcomer has to know of a panel."""

    title: str
    what: str
    """What it shows and what to look at, in whole sentences."""
    normal: str
    """What is normal, and what to do where it is not so."""

    @property
    def text(self) -> str:
        """Markdown for the little i beside the title."""
        return f"{self.what}\n\n**Normal:** {self.normal}"


def texts_of(dashboard: str) -> dict[str, Teaching]:
    """Return the texts of a dashboard by the titles of its panels.

    Raises: KeyError, TypeError: a text that says not what it shows or what is normal.
    """
    read = tomllib.loads((HERE / f"{dashboard}.toml").read_text(encoding="utf-8"))
    return {
        title: Teaching(title=title, **{part: " ".join(text.split()) for part, text in parts.items()})
        for title, parts in read.items()
    }
