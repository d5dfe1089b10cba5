"""What is wrong with the options of `generate`, `split` and `plan`? Told before anything is imported that takes time.

Covers: what options alone tell, also where their own modules look again. Does not cover: what needs a model's tokens or
weights, or a node's answer.
"""

from __future__ import annotations

from common.compute.backend import check_backend
from common.errors import InputError
from common.model.plan import parse_ratios
from common.program.metrics_page import MetricsPlace
from common.weights.model_encodings import WEIGHTS_DTYPES


def check_weights_dtype(weights_dtype: str | None) -> None:
    """Raise InputError unless weights can be stored so."""
    if weights_dtype is not None and weights_dtype not in WEIGHTS_DTYPES:
        raise InputError(f"--weights-dtype is '{weights_dtype}'; use {', '.join(WEIGHTS_DTYPES)}")


def check_cut(world_size: int, split_strategy: str, weights_dtype: str | None) -> None:
    """Raise InputError for a number of nodes, a strategy or a dtype that no model can be cut by."""
    check_weights_dtype(weights_dtype)
    parse_ratios(split_strategy, world_size)


def ratio_count(split_strategy: str) -> int:
    """Return for how many nodes a strategy has numbers; where it has none, any number will do."""
    return split_strategy.count(",") + 1


def check_answer(*, length: int, memory_budget: str | None, has_nodes: bool, backend: str) -> None:
    """Raise InputError for an answer, or memory for it, that cannot be."""
    from common.program.memory_flags import parse_budget

    if length < 1:
        raise InputError(f"--length is {length}; it must be at least 1")
    if memory_budget is not None:
        parse_budget(memory_budget, taken_bytes=0)
        if has_nodes:
            raise InputError("--memory-budget is for nodes that this command starts; give it to each shardnode of "
                             "--nodes")  # fmt: skip
    check_backend(backend)


def check_listeners(metrics_port: int | None, master_address: str | None) -> None:
    """Raise InputError for ports that there are not, and an address that others reach."""
    if metrics_port is not None:
        MetricsPlace(port=metrics_port)
    if master_address is not None:
        from common.wire.rpc import check_listen_address

        check_listen_address(master_address, insecure=False)
