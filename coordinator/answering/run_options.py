"""How the coordinator and the nodes that it starts here run: the options, checked when they are given.

Does not cover: what memory each process gets for them (local/memory.py), nodes that run already (they have options of
their own).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common.compute.backend import FLOAT32, NATIVE, backend_named, check_activations
from common.errors import InputError
from common.program.memory_flags import parse_budget
from common.weights.weight_memory import WeightMemory
from coordinator.ranks.travel import USUAL_TRAVEL, Travel

if TYPE_CHECKING:  # cryptography comes with it, which nodes of this machine have no use for
    from coordinator.membership.reach import MeshAccess


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How the coordinator and its local nodes run."""

    weights: WeightMemory = field(default_factory=WeightMemory)
    """Memory for weights on each node that is started here, and how they are read."""
    memory_budget: str | None = None
    """Most memory of all processes of this machine together: a size, or auto; None: what the other options come to."""
    tokenizer_bytes: int = 0
    """Of a memory budget, what the tokenizer's own processes take."""
    position_capacity: int = 1
    """With a budget: positions of the longest sequence, for which keys and values are kept free."""
    kv_budget_bytes: int
    """Without a budget: most bytes of keys and values on each node that is started here."""
    node_addresses: Sequence[str] = ()
    """Nodes that run already, by address, or by name in `mesh`; none: start them on this machine."""
    mesh: MeshAccess | None = None
    """The mesh that those nodes belong to, where they do."""
    backend: str = NATIVE
    """What computes here: a name of common/compute/backend.py."""
    use_gpu: bool = False
    reach_seconds: float | None = None
    """How long each node that runs already may take to be reached; None: as long as usual."""
    travel: Travel = USUAL_TRAVEL
    """How rounds travel to nodes elsewhere."""
    activations: str = FLOAT32
    """What rows are in products with weights in GGUF's blocks, here and on every node."""

    def __post_init__(self) -> None:
        if self.memory_budget is not None:
            parse_budget(self.memory_budget, taken_bytes=0)  # refuses what is no size, before anything is started
        if self.memory_budget is not None and self.node_addresses:
            raise InputError("--memory-budget is for nodes that this command starts; give it to each shardnode of "
                             "--nodes")  # fmt: skip
        if not 0 < self.kv_budget_bytes < 1 << 63:
            raise InputError(f"--kv-budget-bytes is {self.kv_budget_bytes}; it must be above 0 and fit 63 bits")
        check_activations(self.activations, self.backend, use_gpu=self.use_gpu)
        backend_named(self.backend, use_gpu=self.use_gpu)  # refuses what cannot be, before anything is started
