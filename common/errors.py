"""Every error of shardmesh, in one tree; each class owns its gRPC status, its reason and its exit code.

    ShardmeshError
    |- InputError                 a flag, a prompt, a request is wrong              exit 2
    |  |- PromptTooLong           prompt and answer do not fit the model's context
    |  `- ShapeError              a tensor is not of the shape the plan says
    |- ModelError                 the checkpoint cannot be used                     exit 3
    |  |- ModelNotFound           no such directory, no config.json, no weights
    |  |- CheckpointError         a file of it is missing, cut short or hostile
    |  `- UnsupportedModel        an architecture or config key we do not compute
    |- SliceError                 slices on disk cannot be used                     exit 4
    |  |- SliceMismatch           made for another model, plan or version
    |  |- SliceCorrupt            bytes differ from the manifest
    |  `- SliceReadError          the disk failed, or did not answer in time
    |- NodeError                  a shard node failed                               exit 5
    |  |- NodeLost                gone: killed, crashed, disconnected
    |  |- NodeTimeout             alive perhaps, but silent for too long
    |  `- NodeFault               answered with something that is not an answer
    |- ResourceError              not enough of something                           exit 6
    |  |- QueueFull               so many requests are under way that no more are taken
    |  |- KvBudgetExceeded        no room for another sequence's keys and values
    |  |- WindowTooSmall          two tiles do not fit the memory window
    |  |- DiskFull                no room for slices
    |  `- AddressInUse            another process has this port
    |- NotTrusted                 a peer, a token or a certificate is not trusted   exit 7
    |  `- TokenRefused            a token that was used, has expired, or never was
    |- NoSuchNode                 no member of the mesh has this name               exit 2
    |- NameTaken                  a member of the mesh has this name already        exit 2
    |- ProtocolError              a peer broke the order of messages                exit 5
    `- InternalError              ours                                              exit 70

Does not cover: translation to and from gRPC statuses (wire/rpc.py does, and only it).
The message of an error is one line for a person: what failed, where, what to do.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_OK = 0
EXIT_INPUT = 2
EXIT_MODEL = 3
EXIT_SLICE = 4
EXIT_NODE = 5
EXIT_RESOURCE = 6
EXIT_TRUST = 7
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130


class ShardmeshError(Exception):
    """Root of the tree. Never raised itself."""

    status: ClassVar[str] = "INTERNAL"
    """Name of the grpc.StatusCode that carries this error between processes."""
    reason: ClassVar[str] = "INTERNAL"
    """Machine-readable reason; unique in the tree."""
    exit_code: ClassVar[int] = EXIT_INTERNAL
    """Exit code of a program that ends with this error."""


class InputError(ShardmeshError):
    """What the user or the caller asked for is not possible; asking again cannot help."""

    status = "INVALID_ARGUMENT"
    reason = "BAD_INPUT"
    exit_code = EXIT_INPUT


class PromptTooLong(InputError):
    """Prompt and requested answer together exceed the model's context."""

    reason = "PROMPT_TOO_LONG"


class ShapeError(InputError):
    """A tensor's dtype, shape or byte count differs from what the plan says."""

    reason = "BAD_SHAPE"


class ModelError(ShardmeshError):
    """The checkpoint cannot be used."""

    status = "INVALID_ARGUMENT"
    reason = "BAD_MODEL"
    exit_code = EXIT_MODEL


class ModelNotFound(ModelError):
    """There is no checkpoint at the place named."""

    status = "NOT_FOUND"
    reason = "MODEL_NOT_FOUND"


class CheckpointError(ModelError):
    """A file of the checkpoint is missing, truncated, malformed or tries to execute code."""

    status = "DATA_LOSS"
    reason = "BAD_CHECKPOINT"


class UnsupportedModel(ModelError):
    """The architecture, or a config key that changes the maths, is not implemented."""

    status = "UNIMPLEMENTED"
    reason = "UNSUPPORTED_MODEL"


class SliceError(ShardmeshError):
    """The slices on disk cannot be used."""

    status = "FAILED_PRECONDITION"
    reason = "BAD_SLICE"
    exit_code = EXIT_SLICE


class SliceMismatch(SliceError):
    """A slice was made for another model, plan, rank, dtype or format version."""

    reason = "SLICE_MISMATCH"


class SliceCorrupt(SliceError):
    """A slice's bytes or size differ from its manifest."""

    status = "DATA_LOSS"
    reason = "SLICE_CORRUPT"


class SliceReadError(SliceError):
    """The disk reported an error or gave no answer within the limit."""

    status = "DATA_LOSS"
    reason = "SLICE_READ_FAILED"


class NodeError(ShardmeshError):
    """A shard node failed; the message names it."""

    status = "UNAVAILABLE"
    reason = "NODE_FAILED"
    exit_code = EXIT_NODE


class NodeLost(NodeError):
    """The node's process or its connection is gone."""

    reason = "NODE_LOST"


class NodeTimeout(NodeError):
    """The node did not answer within the round's deadline."""

    status = "DEADLINE_EXCEEDED"
    reason = "NODE_TIMEOUT"


class NodeFault(NodeError):
    """The node answered, but with an internal error or with numbers that are not finite."""

    status = "DATA_LOSS"
    reason = "NODE_FAULT"


class ResourceError(ShardmeshError):
    """There is not enough of something; less load or a larger budget helps."""

    status = "RESOURCE_EXHAUSTED"
    reason = "OUT_OF_RESOURCES"
    exit_code = EXIT_RESOURCE


class QueueFull(ResourceError):
    """As many requests are under way as are taken at once; asking again when one has ended helps."""

    reason = "QUEUE_FULL"


class KvBudgetExceeded(ResourceError):
    """Keys and values of one more sequence do not fit the node's KV budget."""

    reason = "KV_BUDGET_EXCEEDED"


class WindowTooSmall(ResourceError):
    """The memory window cannot hold the least that works: two tiles."""

    reason = "WINDOW_TOO_SMALL"


class BudgetTooSmall(ResourceError):
    """A memory budget is below the least that works."""

    reason = "BUDGET_TOO_SMALL"


class DiskFull(ResourceError):
    """The file system has no room for what is to be written."""

    reason = "DISK_FULL"


class AddressInUse(ResourceError):
    """Another process listens on this address."""

    status = "ALREADY_EXISTS"
    reason = "ADDRESS_IN_USE"


class NotTrusted(ShardmeshError):
    """A peer is not who it should be, or has not shown that it belongs to this mesh."""

    status = "PERMISSION_DENIED"
    reason = "NOT_TRUSTED"
    exit_code = EXIT_TRUST


class TokenRefused(NotTrusted):
    """A token was used already, has expired, or was never made."""

    reason = "TOKEN_REFUSED"


class NoSuchNode(ShardmeshError):
    """No member of the mesh has this name."""

    status = "NOT_FOUND"
    reason = "NO_SUCH_NODE"
    exit_code = EXIT_INPUT


class NameTaken(ShardmeshError):
    """A member of the mesh has this name already."""

    status = "ALREADY_EXISTS"
    reason = "NAME_TAKEN"
    exit_code = EXIT_INPUT


class ProtocolError(ShardmeshError):
    """A peer sent a message that is not allowed at this point."""

    status = "ABORTED"
    reason = "PROTOCOL"
    exit_code = EXIT_NODE


class InternalError(ShardmeshError):
    """A bug of ours."""


def all_error_classes() -> tuple[type[ShardmeshError], ...]:
    """Return every class of the tree, the root left out, parents before children."""
    found: list[type[ShardmeshError]] = []
    pending = ShardmeshError.__subclasses__()
    while pending:
        cls = pending.pop(0)
        found.append(cls)
        pending.extend(cls.__subclasses__())
    return tuple(found)
