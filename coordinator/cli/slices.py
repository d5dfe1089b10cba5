"""`coordinator-cli slices`: which plans of a model lie on this disk, what each takes, and having one go.

Does not cover: slices on nodes of a mesh, which `unload` and the next `load` remove (coordinator/models/unloading.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from common.program.sizes import shown_size
from common.wording import counted
from coordinator.cli.documents import JsonOption, show_document
from coordinator.cli.options import ModelOption, SaveDirOption
from coordinator.cli.tables import Column, show_table
from coordinator.cli.telling import tell

COLUMNS = (
    Column("plan"), Column("nodes", is_number=True), Column("split"), Column("dtype"), Column("size", is_number=True),
    Column("alone", is_number=True),
)  # fmt: skip


def slices(
    model: ModelOption,
    remove: Annotated[
        str, typer.Option(metavar="PLAN", help="Remove this plan, and the weights that no other plan needs.")
    ] = "",
    save_dir: SaveDirOption = Path("split"),
    json_output: JsonOption = False,
) -> None:
    """List the plans that a model is cut for on this disk, or remove one.

    Plans share the weights that they cut alike: what a plan has alone is what removing it gives back. Nodes of a mesh
    have slices of their own; coordinator-cli unload removes those.
    Example: coordinator-cli slices --model models/my-model --remove 4-1c2d3e4f5a6b
    """
    from coordinator.checkpoints.model_place import find_model
    from coordinator.models.local_model import ModelOptions
    from coordinator.slicing.stored_plans import remove_plan

    find_model(model)
    directory = ModelOptions(model=model, save_dir=str(save_dir)).split_directory
    if remove:
        freed_bytes = remove_plan(directory, remove)
        tell(f"{remove} is removed: {shown_size(freed_bytes)} free")
        return
    found = plans_document(directory)
    if json_output:
        show_document(found)
    else:
        show_plans(found, directory)


def plans_document(directory: Path) -> dict[str, Any]:
    """Return what lies in a directory of slices."""
    from common.weights.pack_store import PackStore
    from common.weights.packs import STORE_DIRECTORY
    from coordinator.slicing.stored_plans import slices_in_the_way, stored_plans

    plans, store = stored_plans(directory), PackStore(directory / STORE_DIRECTORY)
    needed = {place for plan in plans for place in plan.places}
    listed = []
    for plan in plans:
        others = {place for other in plans if other is not plan for place in other.places}
        listed.append({
            "name": plan.name, "world_size": plan.world_size, "split_strategy": plan.strategy, "dtype": plan.dtype,
            "slice_bytes": sum(plan.places.values()),
            "alone_bytes": sum(size for place, size in plan.places.items() if place not in others),
        })  # fmt: skip
    kept_bytes = sum(
        byte_count
        for pack in store.packs()
        for tile, byte_count in pack.tiles.values()
        if (tile.pack, tile.offset) not in needed
    )
    return {
        "plans": listed, "disk_bytes": store.total_bytes, "kept_bytes": kept_bytes,
        "has_slices_of_one_dtype": bool(slices_in_the_way(directory)),
    }  # fmt: skip


def show_plans(found: Mapping[str, Any], directory: Path) -> None:
    """Print the plans as a table, and what else there is to know in sentences."""
    plans: Sequence[Mapping[str, Any]] = found["plans"]
    if plans:
        show_table(COLUMNS, [
            (
                one["name"], str(one["world_size"]), one["split_strategy"], one["dtype"],
                shown_size(one["slice_bytes"]), shown_size(one["alone_bytes"]),
            )
            for one in plans
        ])  # fmt: skip
        tell(f"{counted(len(plans), 'plan')} in {directory}: {shown_size(found['disk_bytes'])} on disk, of which "
             f"{shown_size(found['kept_bytes'])} no plan needs and go first when room is wanted")  # fmt: skip
    if found["has_slices_of_one_dtype"]:
        tell(f"{directory} has slices of one dtype, of one plan: --split-bin of generate and split replaces them")
    elif not plans:
        tell(f"no slices in {directory}; coordinator-cli split makes some")
