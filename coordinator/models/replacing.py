"""The last steps of a load: nodes serve their slices, the record is written, what nobody needs any more goes.

Covers: leaving a node alone on which another model answers. Does not cover: the steps before (loading.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

from common.errors import InputError
from coordinator.membership.reach import MeshAccess
from coordinator.models.node_slices import serve_slice
from coordinator.models.records import LoadedModel, LoadedModels
from coordinator.models.unloading import remove_what_nobody_needs

NodesInUse = Callable[[str], Collection[str]]
"""Returns the nodes on which another model than the one that is named answers at this moment."""


def put_to_use(
    model: LoadedModel, models: LoadedModels, mesh: MeshAccess, in_use: NodesInUse = lambda name: ()
) -> list[str]:
    """Have a model that lies where it should be the one of its name; return the nodes that were left alone.

    Those are at work for another model, whose answer would end; they turn to this one when it is asked.
    Raises: NodeError, SliceError, ResourceError: a node cannot serve it; the model of before stays the one.
    """
    busy = []
    for name, description in zip(model.node_names, model.slices(), strict=True):
        if name in in_use(model.name):
            busy.append(name)
        else:
            serve_slice(mesh, name, description.slice_id)
    models.save(model)
    with suppress(InputError):  # another model's damaged record: `models` tells of it
        remove_what_nobody_needs(models, mesh)
    return busy
