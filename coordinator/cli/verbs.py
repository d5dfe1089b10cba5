"""What is the verb called here? Verbs that users of other programs know, and where it is done instead.

Does not cover: options (common/program/familiar.py), what the verbs do (a file each).
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from common.errors import InputError

GENERATE = "generate is what you mean: coordinator-cli generate --model DIR --prompt TEXT"
MODELS = "models is what you mean: coordinator-cli models"
STATUS = "status is what you mean: coordinator-cli status"
UNLOAD = "unload is what you mean: coordinator-cli unload NAME"
SERVE = "a program of its own serves what was loaded: coordinator (coordinator --help explains)"
FETCH = ("models are not fetched: put a model's files into a directory, then coordinator-cli generate --model DIR, or "
         "coordinator-cli load DIR to put it onto a mesh")  # fmt: skip
MEANT = {
    **dict.fromkeys(("run", "ask", "complete", "completion", "infer", "prompt"), GENERATE),
    "chat": "generate --chat is what you mean: coordinator-cli generate --chat --model DIR --prompt TEXT",
    **dict.fromkeys(("serve", "server", "start", "up", "daemon"), SERVE),
    **dict.fromkeys(("pull", "download", "fetch", "get"), FETCH),
    **dict.fromkeys(("list", "ls"), MODELS), **dict.fromkeys(("ps", "top", "health", "info"), STATUS),
    **dict.fromkeys(("rm", "delete", "stop"), UNLOAD),
    "show": "plan is what you mean: coordinator-cli plan DIR says what a model takes",
    **dict.fromkeys(("create", "push", "deploy"), "load is what you mean: coordinator-cli load DIR"),
    "slice": "split is what you mean: coordinator-cli split --model DIR --world-size N",
    "devices": "nodes is what you mean: coordinator-cli nodes",
    "join": "the device that joins types it: shardnode join TOKEN; here coordinator-cli mesh invite prints a token",
    **{name: f"mesh {name} is what you mean: coordinator-cli mesh {name}" for name in ("init", "invite", "remove")},
    "version": "--version is what you mean: coordinator-cli --version",
    "help": "--help is what you mean: coordinator-cli --help",
}  # fmt: skip


class Verbs(TyperGroup):
    """The verbs of `coordinator-cli`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return what to run. Raises: InputError: a verb of other programs; it says what ours is."""
        if args and not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None and args[0] in MEANT:
            raise InputError(f"there is no '{args[0]}'; {MEANT[args[0]]}")
        return super().resolve_command(ctx, args)
