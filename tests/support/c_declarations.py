"""What do our C headers declare? Read as text: compilers tell where a field lies, but not which fields there are.

Covers: plain structures and prototypes, written as common/native writes them.
Does not cover: C in general; what it cannot read it does not find, and a test that looks for it fails.
"""

from __future__ import annotations

import re

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
STRUCTURE = re.compile(r"^struct (\w+) \{([^}]*)\};", re.MULTILINE)
PROTOTYPE = re.compile(r"^EXPORT (.*?)(shardmesh_\w+)\((.*?)\);", re.DOTALL | re.MULTILINE)
LAST_NAME = re.compile(r"(\w+)\s*$")
FIELD_NAME = re.compile(r"(\w+)\s*(?:\[\w+\])?\s*$")


def structures_of(header: str) -> dict[str, list[str]]:
    """Return each structure's fields in their order."""
    found = {}
    for name, body in STRUCTURE.findall(COMMENT.sub("", header)):
        statements = [statement for statement in body.split(";") if statement.strip()]
        declarators = [part for statement in statements for part in statement.split(",")]
        found[name] = [match.group(1) for part in declarators if (match := FIELD_NAME.search(part))]
    return found


def functions_of(header: str) -> dict[str, list[str]]:
    """Return each exported function's result type and argument types, `const` and `struct` left out."""
    found = {}
    for result, name, arguments in PROTOTYPE.findall(COMMENT.sub("", header)):
        types = [LAST_NAME.sub("", argument) for argument in arguments.split(",") if argument.strip() != "void"]
        found[name] = [_plain(text) for text in (result, *types)]
    return found


def _plain(text: str) -> str:
    return " ".join(word for word in text.replace("*", " * ").split() if word not in ("const", "struct"))
