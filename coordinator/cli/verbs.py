"""What is the verb called here? Verbs that users of other programs know, and where it is done instead.

Does not cover: options (common/program/familiar.py), what the verbs do (a file each).
"""

from __future__ import annotations

from common.program.other_verbs import verbs_with

GENERATE = "generate is what you mean: coordinator-cli generate --model DIR --prompt TEXT"
MODELS = "models is what you mean: coordinator-cli models"
STATUS = "status is what you mean: coordinator-cli status"
WHY = "why is what you mean: coordinator-cli why says what bounds tokens/s"
UNLOAD = "unload is what you mean: coordinator-cli unload NAME"
SERVE = "a program of its own serves what was loaded: coordinator (coordinator --help explains)"
FETCH = ("models are not fetched: put a model's files into a directory, then coordinator-cli generate --model DIR, or "
         "coordinator-cli load DIR to put it onto a mesh")  # fmt: skip
MESH_VERBS = ("init", "invite", "remove", "backup", "restore", "rotate")
MEANT = {
    **dict.fromkeys(("run", "ask", "complete", "completion", "infer", "prompt"), GENERATE),
    "chat": "generate --chat is what you mean: coordinator-cli generate --chat --model DIR --prompt TEXT",
    **dict.fromkeys(("serve", "server", "start", "up", "daemon"), SERVE),
    **dict.fromkeys(("pull", "download", "fetch", "get"), FETCH),
    **dict.fromkeys(("list", "ls"), MODELS), **dict.fromkeys(("ps", "health", "info"), STATUS),
    **dict.fromkeys(("rm", "delete", "stop"), UNLOAD),
    **dict.fromkeys(("explain", "profile", "slow", "analyze", "analyse"), WHY),
    "show": "plan is what you mean: coordinator-cli plan DIR says what a model takes",
    **dict.fromkeys(("create", "push", "deploy"), "load is what you mean: coordinator-cli load DIR"),
    **dict.fromkeys(("watch", "htop", "monitor"), "top is what you mean: coordinator-cli top"),
    "slice": "split is what you mean: coordinator-cli split --model DIR --world-size N",
    **dict.fromkeys(("plans", "prune"), "slices is what you mean: coordinator-cli slices --model DIR [--remove PLAN]"),
    "devices": "nodes is what you mean: coordinator-cli nodes",
    "join": "the device that joins types it: shardnode join TOKEN; here coordinator-cli mesh invite prints a token",
    **{name: f"mesh {name} is what you mean: coordinator-cli mesh {name}" for name in MESH_VERBS},
    "version": "--version is what you mean: coordinator-cli --version",
    "help": "--help is what you mean: coordinator-cli --help",
}  # fmt: skip

Verbs = verbs_with(MEANT)
"""The verbs of `coordinator-cli`."""
