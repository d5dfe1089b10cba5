"""Which compiler does a test call that asks what becomes of a library, and not what is in it?

Covers: one that gives the library that is in use, since compiling takes half a minute of processor time; with
SHARDMESH_THOROUGH=1 the system's. Does not cover: whether the sources compile: `make test` begins with that where they
have changed, `make verify` has every compiler do it.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from common.native.build import LIBRARY, system_compiler
from tests.support.thorough import THOROUGH

SCRIPT = """#!/bin/sh
shared=
while [ $# -gt 0 ]; do
    case $1 in
        -shared) shared=yes ;;
        -o) target=$2 ;;
    esac
    shift
done
if [ "$shared" ]; then cp {library} "$target"; else : > "$target"; fi
"""


def quick_compiler(directory: Path) -> list[str]:
    """Return the command, as `build` and $CC take it; its program is written to `directory`."""
    if THOROUGH or not LIBRARY.exists():
        return system_compiler()
    program = directory / "quick-compiler"
    program.write_text(SCRIPT.format(library=shlex.quote(str(LIBRARY))), encoding="utf-8")
    program.chmod(0o755)
    return [str(program)]
