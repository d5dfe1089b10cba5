"""Do the kernels' threads start in a program that is linked with the library, too?

Covers: what threads have to themselves, which such a program's come with, fits their small stacks.
Does not cover: what they compute (tests/property/test_matmul.py), programs that load the library later, as Python does.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from common.native.library import load
from tests.support.toolchains import GCC, RUN_LIMIT_SECONDS

PROGRAM = """
#include "interface.h"
#include <dirent.h>
#include <stdio.h>
static float rows[64], weights[64 * 64], sums[64];
int main(void) {
    int count = 0;
    for (int i = 0; shardmesh_variant_name(i) && shardmesh_choose_variant(i); i++) continue;
    shardmesh_use_threads(2, 0);
    shardmesh_multiply(rows, 64, 1, (const char *)weights, 0, 64, 64, sums);
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *task = readdir(tasks); task; task = readdir(tasks)) count += task->d_name[0] != '.';
    printf("%d", count);
    return 0;
}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells how many threads there are")
@pytest.mark.skipif(bool(GCC.missing()), reason=GCC.missing() or "there is a compiler")
def test_a_worker_starts_in_a_program_that_is_linked_with_the_library(tmp_path: Path) -> None:
    """One beside the caller. Two buffers of 256 KB for each thread once left no room for a stack, and none started."""
    kernels = load()
    if kernels.functions is None:
        pytest.skip(kernels.reason)
    source, library = tmp_path / "threads.c", tmp_path / "matmul.so"
    source.write_text(PROGRAM)
    library.write_bytes(Path(kernels.functions._name).read_bytes())
    program = GCC.program(source, library=library)
    done = subprocess.run([program], capture_output=True, text=True, timeout=RUN_LIMIT_SECONDS, check=True)
    assert done.stdout == "2"
