"""The `shardnode` program: flags to a NodeConfig, a node until SIGTERM, errors as one line and an exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from common.command_line import CONTEXT_SETTINGS, run_process
from common.lifecycle import stop_on_signals
from common.logs import configure_logs
from shardnode.config import DEFAULT_KV_BUDGET_BYTES, NodeConfig

app = typer.Typer(add_completion=False, context_settings=CONTEXT_SETTINGS, rich_markup_mode=None)


@app.command()
def serve(
    slice_dir: Annotated[Path, typer.Option(help="Directory of one slice, such as MODEL/split/node0.")],
    listen: Annotated[
        str, typer.Option(help="Where to listen: host:port (port 0: any free one) or unix:/path.")
    ] = "127.0.0.1:0",
    memory_window: Annotated[
        int, typer.Option(help="Room for this many of the largest blocks, at least 2; 0 keeps all weights in memory.")
    ] = 2,
    kv_budget_bytes: Annotated[
        int, typer.Option(help="Most bytes of keys and values, all sequences together.")
    ] = DEFAULT_KV_BUDGET_BYTES,
    threads: Annotated[int, typer.Option(help="Threads that compute; 0: one per usable processor.")] = 0,
    use_gpu: Annotated[bool, typer.Option("--use-gpu", help="Compute on CUDA.")] = False,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics on this port of 127.0.0.1; 0: any free one.")
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Listen without TLS where others can reach it. Trusted networks only."),
    ] = False,
    read_timeout_seconds: Annotated[
        float, typer.Option(help="How long a block may wait for the disk before its request fails.")
    ] = 60.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve one slice of a model to a coordinator until SIGTERM or Ctrl-C.

    Example: shardnode --slice-dir models/my-model/split/node0 --listen 127.0.0.1:50051
    """
    configure_logs(log_level)
    config = NodeConfig(
        slice_directory=slice_dir, listen=listen, memory_window=memory_window, kv_budget_bytes=kv_budget_bytes,
        thread_count=threads, use_gpu=use_gpu, metrics_port=metrics_port, insecure=insecure,
        read_timeout_seconds=read_timeout_seconds,
    )  # fmt: skip
    # Here and not at the top: it imports torch, and --help must not wait for that.
    from shardnode.run import RunningNode

    node = RunningNode(config)
    stop_on_signals(node.stop)
    if insecure:
        print(
            "shardnode: warning: --insecure: whoever reaches this address sees and changes all traffic", file=sys.stderr
        )
    print(f"shardnode: serving {slice_dir} on {node.address}", file=sys.stderr, flush=True)
    if metrics_port is not None:
        print(f"shardnode: metrics on http://127.0.0.1:{node.metrics_port}/metrics", file=sys.stderr, flush=True)
    node.wait()


def main() -> NoReturn:
    """Run the program and exit with its documented code."""
    run_process(app, "shardnode")
