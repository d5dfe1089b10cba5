"""The models that were loaded onto the mesh: who holds which slice, the coordinator's own slice, the tokenizer.

    STATE_DIR/models/NAME/model.json              the record: plan, nodes by rank; a model is there when this is
    STATE_DIR/models/NAME/plan.json               the same of the newest attempt to load it, whole or not
    STATE_DIR/models/NAME/SLICE/coordinator/      embedding, norms and head; SLICE begins the coordinator's slice's id
    STATE_DIR/models/NAME/SLICE/tokenizer/        what turns text into tokens

Covers: records on disk, so that a restart finds them; names. Does not cover: loading (loading.py), running them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import InputError, ModelNotFound
from common.model.plan import Plan
from common.program.state_files import COPY, DAMAGE, is_there, read_state, remove_state, write_state
from common.weights.slice_description import COORDINATOR_RANK, SliceDescription, total_bytes
from coordinator.checkpoints.gguf_place import plain_name

if TYPE_CHECKING:  # numpy comes with it, which a coordinator without a model has no use for
    from coordinator.ranks.identity import RanksIdentity

MODELS_DIRECTORY, RECORD_FILE, PLAN_FILE = "models", "model.json", "plan.json"
OWN_SLICE, TOKENIZER_DIRECTORY = "coordinator", "tokenizer"
FORMAT = 2
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """One model as it lies on the mesh."""

    name: str
    directory: Path
    """Of the record and what belongs to it, and of what belongs to an attempt to replace it."""
    source: str
    """Where it was loaded from; a note for people."""
    description: SliceDescription
    """Of the coordinator's own slice; those of the nodes differ in the rank."""
    node_names: tuple[str, ...]
    """By rank."""

    @property
    def identity(self) -> RanksIdentity:
        """What every node must hold."""
        from coordinator.ranks.identity import RanksIdentity

        about = self.description
        return RanksIdentity(
            model_identity=about.model_identity, spec=about.spec, plan=about.plan, dtype=about.dtype
        )  # fmt: skip

    @property
    def is_loaded(self) -> bool:
        """Whether it is there, and not only the attempt to load it."""
        return is_there(self.directory / RECORD_FILE)

    @property
    def parts_directory(self) -> Path:
        """What the coordinator keeps of it: another model or plan of this name has its own beside it."""
        return self.directory / self.description.slice_id[:16]

    @property
    def own_directory(self) -> Path:
        """The coordinator's own slice."""
        return self.parts_directory / OWN_SLICE

    @property
    def node_directories(self) -> list[Path]:
        """None: the nodes have their slices."""
        return []

    @property
    def tokenizer_directory(self) -> Path:
        """What load_tokenizer takes."""
        return self.parts_directory / TOKENIZER_DIRECTORY

    def slices(self) -> list[SliceDescription]:
        """Return the description of every node's slice, by rank."""
        return [self.description.of_rank(rank) for rank in range(self.description.plan.world_size)]

    def total_bytes(self) -> int:
        """Return the bytes of all slices, the coordinator's own included."""
        return total_bytes(self.description)


class LoadedModels:
    """The records below one state directory."""

    def __init__(self, state_directory: Path) -> None:
        self.directory = state_directory / MODELS_DIRECTORY

    def all(self) -> list[LoadedModel]:
        """Return the models, by name. Raises: InputError: a record is damaged."""
        return [_read(record) for record in self._files(RECORD_FILE) if NAME.fullmatch(record.parent.name)]

    def stamp(self) -> object:
        """Return what is another one as soon as a record has come, gone or changed."""
        found: list[tuple[str, int, int, int]] = []
        try:
            names = os.listdir(self.directory)
        except OSError:  # no model was ever loaded
            return found
        for name in names:
            with suppress(OSError):  # no record, or it went just now
                about = os.stat(f"{self.directory}/{name}/{RECORD_FILE}")
                found.append((name, about.st_ino, about.st_mtime_ns, about.st_size))
        return sorted(found)

    def get(self, name: str) -> LoadedModel:
        """Return one model; the only one, if `name` is empty. Raises: ModelNotFound; InputError: a damaged record."""
        if name and (model := self.find(name)) is not None:  # whatever other records are like
            return model
        models = self.all()
        if name or not models:
            raise _not_found(name, models)
        if len(models) > 1:
            raise InputError(f"several models are loaded ({_listed(models)}); say which one with --model NAME")
        return models[0]

    def find(self, name: str) -> LoadedModel | None:
        """Return one model, or None."""
        path = self.directory / name / RECORD_FILE
        return _read(path) if NAME.fullmatch(name) and is_there(path) else None

    def future(
        self, name: str, source: Path, description: SliceDescription, node_names: Sequence[str]
    ) -> LoadedModel:  # fmt: skip
        """Return a model as it will be once it is loaded. Args: description: of the coordinator's own slice."""
        return LoadedModel(
            name=name, directory=self.directory / name, source=os.path.realpath(source), description=description,
            node_names=tuple(node_names),
        )  # fmt: skip

    def save(self, model: LoadedModel) -> None:
        """Write or replace a record."""
        value = {
            "format": FORMAT, "source": model.source, "nodes": list(model.node_names),
            "description": model.description.to_json(),
        }  # fmt: skip
        write_state(model.directory / RECORD_FILE, json.dumps(value, indent=1).encode())
        for path in model.directory.iterdir():  # what belonged to models of this name before, and to attempts
            if path.is_dir() and path != model.parts_directory:
                shutil.rmtree(path, ignore_errors=True)

    def plan_ahead(self, model: LoadedModel) -> None:
        """Write down what is about to be loaded, so that the next attempt goes on with the same plan."""
        value = {"nodes": list(model.node_names), "description": model.description.to_json()}
        model.directory.mkdir(mode=0o700, exist_ok=True)
        write_state(model.directory / PLAN_FILE, json.dumps(value, indent=1).encode())

    def planned(self, name: str, description: SliceDescription, node_names: Sequence[str]) -> Plan | None:
        """Return the plan by which the same model was, or was to be, loaded onto the same nodes; None: there is none.

        Args: description: of the coordinator's own slice; its plan does not matter.
        """
        attempt = _read_attempt(self.directory / name / PLAN_FILE)
        if attempt is None or attempt.node_names != tuple(node_names):
            return None
        known = attempt.description
        return known.plan if replace(known, plan=description.plan) == description else None

    def attempts(self) -> list[LoadedModel]:
        """Return what each name's last load was to become, whether it came to its end or not."""
        read = [_read_attempt(path) for path in self._files(PLAN_FILE)]
        return [attempt for attempt in read if attempt is not None]

    def interrupted(self) -> list[LoadedModel]:
        """Return the attempts that no model of their name has come of."""
        return [attempt for attempt in self.attempts() if not attempt.is_loaded]

    def named(self, name: str) -> list[LoadedModel]:
        """Return what there is of a model: the record, and the last attempt to load it. Raises: ModelNotFound."""
        every = [*self.all(), *self.attempts()]
        found = [model for model in every if model.name == name]
        if not found:
            raise _not_found(name, every)
        return found

    def forget(self, name: str) -> None:
        """Remove a model's record and what belongs to it; the record first, so that half a model is none."""
        remove_state(self.directory / name / RECORD_FILE)
        shutil.rmtree(self.directory / name, ignore_errors=True)

    def _files(self, name: str) -> list[Path]:
        """Return each model's file of that name, sorted, also where only its copy is there."""
        found = {*self.directory.glob(f"*/{name}"), *self.directory.glob(f"*/{name}{COPY}")}
        return sorted({path.with_name(name) for path in found})


def name_for(model: Path, wanted: str = "") -> str:
    """Return what a model is called: as wanted, or as its directory or file is.

    Raises: InputError: no model can be called so.
    """
    name = wanted or (plain_name(model) if os.path.isfile(model) else os.path.basename(os.path.realpath(model)))
    if not wanted:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:60]
    if not NAME.fullmatch(name):
        raise InputError(f"a model cannot be called '{name[:80]}'; choose letters, digits, dots and dashes with --name")
    return name


def _not_found(name: str, models: Sequence[LoadedModel]) -> ModelNotFound:
    if not models:
        return ModelNotFound("no model is loaded; coordinator-cli load MODEL puts one onto the mesh")
    return ModelNotFound(f"no model called '{name[:60]}' is loaded; there are: {_listed(models)}")


def _listed(models: Sequence[LoadedModel]) -> str:
    return ", ".join(dict.fromkeys(model.name for model in models))


def _read_attempt(path: Path) -> LoadedModel | None:
    """Return what was to be loaded, as it would be then; None where nothing can be read."""

    def parse(content: bytes) -> tuple[tuple[str, ...], SliceDescription]:
        value: Any = json.loads(content)
        return tuple(str(name) for name in value["nodes"]), SliceDescription.from_json(value["description"])

    try:
        names, description = read_state(path, parse)
    except (OSError, *DAMAGE):
        return None
    if len(names) != description.plan.world_size:
        return None
    directory = path.parent
    return LoadedModel(
        name=directory.name, directory=directory, source="", description=description, node_names=names
    )  # fmt: skip


def _read(path: Path) -> LoadedModel:
    again = f"load the model again (coordinator-cli load MODEL --name {path.parent.name})"

    def parse(content: bytes) -> LoadedModel:
        value: Any = json.loads(content)
        if value["format"] != FORMAT:
            raise ValueError(f"it is of format {value['format']} and this program writes {FORMAT}")
        description = SliceDescription.from_json(value["description"])
        nodes = tuple(str(name) for name in value["nodes"])
        if description.rank != COORDINATOR_RANK or len(nodes) != description.plan.world_size:
            raise ValueError("another rank, or another number of nodes")
        return LoadedModel(
            name=path.parent.name, directory=path.parent, source=str(value["source"]), description=description,
            node_names=nodes,
        )  # fmt: skip

    try:
        return read_state(path, parse)
    except (OSError, *DAMAGE) as error:
        raise InputError(f"{path} cannot be used ({error}); {again}") from error
