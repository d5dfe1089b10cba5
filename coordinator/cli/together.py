"""Which options of `generate` contradict each other? Told as that, and not by what comes of taking one of them.

Does not cover: values that are wrong by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from common.errors import InputError
from common.wording import counted


def check_together(options: Mapping[str, Any], is_given: Callable[[str], bool]) -> None:
    """Refuse options of which one says the contrary of another, or is nobody's. Raises: InputError.

    Args: options: all, by their names; is_given: whether a person has given one.
    """
    nodes = options["nodes"]
    if nodes is None:
        if options["insecure"]:
            raise InputError("--insecure is for --nodes on other devices, and without --nodes all nodes are processes "
                             "of this machine; leave it out, or name them")  # fmt: skip
        if options["state_dir"] is not None:
            raise InputError("--state-dir is the mesh of --nodes or --coordinator, and neither is given; name the "
                             "nodes, or leave it out")  # fmt: skip
        return
    count = len([name for name in nodes.split(",") if name.strip()])
    if is_given("world_size") and options["world_size"] != count:
        raise InputError(f"--nodes names {counted(count, 'node')} and --world-size is {options['world_size']}: they "
                         "contradict each other; leave --world-size out, or name as many nodes")  # fmt: skip
    if is_given("kv_budget_bytes"):
        raise InputError("--kv-budget-bytes is for nodes that this command starts; give it to each shardnode of "
                         "--nodes")  # fmt: skip
