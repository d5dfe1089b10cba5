"""Do C and ctypes mean the same: every structure's fields, every function's arguments, every number that both know?

Covers: common/native/library.py, common/native/peers.py, common/native/served.py and common/native/choices.py
against the headers beside them, as a compiler for each processor lays them out.
Does not cover: what Python puts into the fields (tests/property, tests/contract).
"""

from __future__ import annotations

import ctypes
import inspect
import re
import subprocess
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.native import choices, library, peers, served
from common.native.build import SOURCE_DIRECTORY
from common.native.library import ABI_VERSION, NUMBERS_PER_SCALE, WEIGHT_KINDS, Outcome
from common.native.peers import PLAIN_FRAME, TLS_RECORD
from tests.support.c_declarations import functions_of, structures_of
from tests.support.toolchains import ARM_GCC, CLANG, GCC, RUN_LIMIT_SECONDS, Toolchain

HEADERS = "\n".join(path.read_text() for path in sorted(SOURCE_DIRECTORY.glob("*.h")))
MACHINE_TYPES = {
    ctypes.c_int: "int", ctypes.c_ssize_t: "ptrdiff_t", ctypes.c_float: "float", ctypes.c_double: "double",
    ctypes.c_char_p: "char *", ctypes.c_void_p: "*", None: "void",
}  # fmt: skip
"""C's names of what ctypes says; `*` for any address of memory without a ctypes type of its own."""
PROGRAM = """
#include "interface.h"
#include "product.h"
#include <stdio.h>
#define KIND(of) _Generic((of), float: "float", double: "float", int: "int", long: "int", long long: "int", \\
                          STRUCTURES default: "pointer")
#define FIELD(s, f) printf("%s.%s %zu %zu %s\\n", #s, #f, offsetof(struct s, f), sizeof(((struct s *)0)->f), \\
                           KIND(((struct s *)0)->f));
#define SIZE(s) printf("%s %zu\\n", #s, sizeof(struct s));
#define NUMBER(n) printf("%s %d\\n", #n, (int)n);
int main(void) {
    BODY
    return 0;
}
"""


def c_name(structure: type[Any]) -> str:
    """Return what C calls a structure."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", structure.__name__).lower()


STRUCTURES = {
    c_name(made): made
    for made in {**vars(library), **vars(peers), **vars(served), **vars(choices)}.values()
    if inspect.isclass(made) and issubclass(made, ctypes.Structure) and made is not ctypes.Structure
}
NUMBERS = {
    "ABI_VERSION": ABI_VERSION,
    "TLS_RECORD": TLS_RECORD,
    "PLAIN_FRAME": PLAIN_FRAME,
    "NUMBERS_PER_SCALE": NUMBERS_PER_SCALE,
    **{name.upper(): kind for kind, name in enumerate(WEIGHT_KINDS)},
    "WEIGHT_KINDS": len(WEIGHT_KINDS),
    **{outcome.name: outcome.value for outcome in Outcome},
}


def kind_of(field: Any) -> str:
    """Return what PROGRAM's KIND says of such a field."""
    if issubclass(field, ctypes.Structure):
        return "structure"
    if field in (ctypes.c_float, ctypes.c_double):
        return "float"
    return "int" if field in (ctypes.c_int, ctypes.c_ssize_t, ctypes.c_longlong) else "pointer"


def in_python() -> list[str]:
    """Return the lines that PROGRAM prints, as ctypes has it."""
    lines = []
    for name, structure in STRUCTURES.items():
        for field, *rest in structure._fields_:
            place = getattr(structure, field)
            lines.append(f"{name}.{field} {place.offset} {place.size} {kind_of(rest[0])}")
        lines.append(f"{name} {ctypes.sizeof(structure)}")
    return lines + [f"{name} {number}" for name, number in NUMBERS.items()]


def in_c(toolchain: Toolchain, directory: Path) -> list[str]:
    """Return what PROGRAM prints: what a compiler makes of the headers."""
    body = []
    for name, structure in STRUCTURES.items():
        body += [f"FIELD({name}, {field[0]})" for field in structure._fields_] + [f"SIZE({name})"]
    body += [f"NUMBER({name})" for name in NUMBERS]
    source = directory / "interface.c"
    kinds = "".join(f'struct {name}: "structure", ' for name in STRUCTURES)
    source.write_text(PROGRAM.replace("STRUCTURES ", kinds).replace("BODY", "\n    ".join(body)))
    program = toolchain.program(source)
    done = subprocess.run(
        toolchain.command(program), capture_output=True, text=True, timeout=RUN_LIMIT_SECONDS, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("toolchain", [GCC, CLANG, ARM_GCC], ids=lambda toolchain: toolchain.name)
def test_every_field_lies_where_c_has_it(tmp_path: Path, toolchain: Toolchain) -> None:
    """Offset, size and kind of each, the size of the whole, and the numbers that both sides write down."""
    if toolchain.missing():
        pytest.skip(toolchain.missing())
    assert in_c(toolchain, tmp_path) == in_python()


def test_ctypes_leaves_no_field_of_c_out() -> None:
    """One that lies in what ctypes takes for padding moves no offset."""
    declared = structures_of(HEADERS)
    assert {name: declared[name] for name in STRUCTURES} == {
        name: [field[0] for field in structure._fields_] for name, structure in STRUCTURES.items()
    }


def type_of(argument: Any) -> str:
    """Return an argument's or a result's type as C would name it, addresses by what they are of."""
    if argument in MACHINE_TYPES:
        return MACHINE_TYPES[argument]
    target = argument._type_
    return f"{c_name(target)} *" if issubclass(target, ctypes.Structure) else "*"


def is_same(in_header: str, in_ctypes: str) -> bool:
    """Tell whether a type of C is the one that ctypes says; an address without a type of its own may be of anything."""
    return in_header.endswith("*") if in_ctypes == "*" else in_header == in_ctypes


def test_every_function_takes_in_python_what_it_takes_in_c() -> None:
    """All of them, with as many arguments, each of the same type; addresses of structures are of the same one."""
    declared: Any = defaultdict(SimpleNamespace)

    class Functions:
        def __getattr__(self, name: str) -> SimpleNamespace:
            return declared[name]  # type: ignore[no-any-return]  # made of nothing but what _declare sets

    library._declare(Functions())  # type: ignore[arg-type]  # only takes down what would be declared
    exported = functions_of((SOURCE_DIRECTORY / "interface.h").read_text())
    assert exported.keys() == declared.keys()
    for name, types in exported.items():
        said = [type_of(argument) for argument in (declared[name].restype, *declared[name].argtypes)]
        assert len(types) == len(said), name
        wrong = [pair for pair in zip(types, said, strict=True) if not is_same(*pair)]
        assert not wrong, f"{name}: {wrong}"
