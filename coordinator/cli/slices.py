"""`coordinator-cli slices`: which plans of a model lie on this disk, what each takes, and having one go.

Does not cover: what nodes of a mesh hold, which is asked where no model is named (held_slices.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from common.errors import InputError
from common.program.path_options import path_option
from common.program.sizes import shown_size
from common.wording import counted
from coordinator.cli.documents import JsonOption, show_document
from coordinator.cli.held_slices import KEPT, held_document, remove_kept, show_held
from coordinator.cli.options import SaveDirOption, StateOption
from coordinator.cli.tables import Column, show_table
from coordinator.cli.telling import tell

COLUMNS = (
    Column("plan"), Column("nodes", is_number=True), Column("split"), Column("dtype"), Column("size", is_number=True),
    Column("alone", is_number=True),
)  # fmt: skip


def slices(
    model: Annotated[
        Path | None,
        path_option("--model", "-m", help="A model here, as of `split`; without it: what the nodes of the mesh hold."),
    ] = None,
    remove: Annotated[
        str,
        typer.Option(
            metavar="PLAN",
            help="Remove this plan, and the weights that no other plan needs; of nodes: "
            f"{KEPT}, what no slice needs there.",
        ),
    ] = "",
    save_dir: SaveDirOption = Path("split"),
    state_dir: StateOption = None,
    json_output: JsonOption = False,
) -> None:
    """List the plans that a model is cut for on this disk, or what the nodes of the mesh hold, or remove some of it.

    Plans share the weights that they cut alike: what a plan has alone is what removing it gives back. Nodes keep what
    no slice needs of a loaded model, for another plan; slices themselves coordinator-cli unload removes.
    Example: coordinator-cli slices --model models/my-model --remove 4-1c2d3e4f5a6b
    """
    if model is None:
        _of_nodes(remove, state_dir, json_output)
        return
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


def _of_nodes(remove: str, state_dir: Path | None, json_output: bool) -> None:
    """Do as `slices` without a model. Raises: InputError: that cannot be removed."""
    from coordinator.membership.state import default_state_directory

    state = state_dir or default_state_directory()
    if remove and remove != KEPT:
        raise InputError(f"--remove '{remove[:60]}' is a plan of which model? name it with --model; of nodes there is "
                         f"--remove {KEPT}, and coordinator-cli unload NAME")  # fmt: skip
    if remove:
        tell(f"what was kept is removed: {shown_size(remove_kept(state))} free on the nodes")
    elif json_output:
        show_document(held_document(state))
    else:
        show_held(held_document(state))


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
