"""`coordinator-cli generate`: one prompt in, text out. Flags only; answer_here.py does the work."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from common.compute.backend import NATIVE, check_activations
from common.errors import InputError
from common.program.logs import configure_logs
from common.program.memory_flags import (
    MemoryWindowOption,
    PageCacheOption,
    ReadBytesOption,
    ReadsInFlightOption,
    ReadTimeoutOption,
    WindowBytesOption,
    weight_memory,
)
from common.program.path_options import address_option, path_option
from common.program.program_start import has_begun
from common.program.request_id import check_request_id, new_request_id
from common.program.secret_text import text_from
from common.program.sizes import parse_size
from common.wire.addresses import host_port
from coordinator.cli import sampling_options
from coordinator.cli.answer_screen import AnswerScreen
from coordinator.cli.early import check_answer, check_cut, check_listeners
from coordinator.cli.options import (
    ActivationsOption,
    BackendOption,
    LogLevelOption,
    PromptFileOption,
    PromptOption,
    RoundsOption,
    SaveDirOption,
    SplitBinOption,
    StrategyOption,
    WeightsDtypeOption,
    WireDtypeOption,
    WorldSizeOption,
)
from coordinator.cli.together import check_together
from coordinator.local.pool import LocalNodes
from coordinator.ranks.travel import Travel


def generate(
    context: typer.Context,
    model: Annotated[
        Path | None,
        path_option(
            "--model",
            "-m",
            help="A Hugging Face model directory, a .gguf file, or a directory with one .gguf. With --coordinator: "
            "the name of a loaded model; the only one by default.",
            show_default=False,
        ),
    ] = None,
    prompt: PromptOption = "",
    prompt_file: PromptFileOption = None,
    prefix: Annotated[str, typer.Option(help="Text put before the prompt, for context.")] = "",
    length: Annotated[int, typer.Option("--length", "-n", help="Most tokens to generate.")] = 20,
    chat: Annotated[bool, typer.Option("--chat", help="Apply the model's chat template to the prompt.")] = False,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 takes the likeliest token.")] = 1.0,
    k: Annotated[int, typer.Option(help="Sample from the k likeliest tokens only; 0: from all.")] = 0,
    p: Annotated[float, typer.Option(help="Sample from the likeliest tokens that together reach p; 1: all.")] = 0.9,
    min_p: sampling_options.MinPOption = 0.0,
    repetition_penalty: sampling_options.RepetitionOption = 1.0,
    presence_penalty: sampling_options.PresenceOption = 0.0,
    frequency_penalty: sampling_options.FrequencyOption = 0.0,
    logit_bias: sampling_options.BiasOption = None,
    logprobs: sampling_options.LogprobsOption = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 42,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on past an end token.")] = False,
    stop: sampling_options.StopOption = None,
    world_size: WorldSizeOption = 1,
    split_strategy: StrategyOption = "uniform",
    split_bin: SplitBinOption = False,
    save_dir: SaveDirOption = Path("split"),
    weights_dtype: WeightsDtypeOption = None,
    memory_window: MemoryWindowOption = None,
    window_bytes: WindowBytesOption = None,
    memory_budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Most memory of everything that this command starts, itself included, such as 700MB, or auto (what "
            "is free). After window, keys and values, weights stay in memory as far as it goes.",
            show_default=False,
        ),
    ] = None,
    page_cache: PageCacheOption = "auto",
    reads_in_flight: ReadsInFlightOption = 0,
    read_bytes: ReadBytesOption = None,
    read_timeout_seconds: ReadTimeoutOption = 60.0,
    kv_budget_bytes: Annotated[
        str, typer.Option(metavar="SIZE", help="Most memory of keys and values on each local node, such as 512MB.")
    ] = "1GiB",
    nodes: Annotated[
        str | None,
        address_option(
            help="Use these running shardnodes instead of starting some: names of the mesh's nodes, kitchen,attic, or "
            "addresses, host:port,host:port.",
            show_default=False,
        ),
    ] = None,
    coordinator: Annotated[
        str | None,
        address_option(
            help="Ask this running coordinator, host:port, for a model that was loaded (coordinator-cli load).",
            show_default=False,
        ),
    ] = None,
    state_dir: Annotated[
        Path | None, path_option(help="Where the mesh of --nodes or --coordinator is kept.", show_default=False)
    ] = None,
    request_id: Annotated[
        str | None,
        typer.Option(help="What logs of all programs call this request; made up by default.", show_default=False),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Reach --nodes on other devices without TLS. Trusted networks only.")
    ] = False,
    wire_dtype: WireDtypeOption = "float32",
    rounds: RoundsOption = "auto",
    backend: BackendOption = "native",
    activations: ActivationsOption = "float32",
    use_gpu: Annotated[bool, typer.Option("--use-gpu", help="Compute on CUDA.")] = False,
    master_ip: Annotated[str, typer.Option(help="Where this command answers health checks meanwhile.")] = "127.0.0.1",
    master_port: Annotated[int, typer.Option(help="Its port. It is opened if this or --master-ip is given.")] = 29500,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics on this port of 127.0.0.1 meanwhile.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
    log_level: LogLevelOption = "warning",
) -> None:
    """Generate text with a model cut over several nodes.

    Without --nodes the nodes are processes of this machine that start now and end with the answer. The model is
    sliced on first use. Text goes to stdout; a short report goes to stderr.

    Example: coordinator-cli generate --model models/my-model --world-size 4 --chat --prompt "Why is the sky blue?"

    With --coordinator a running coordinator answers, with a model that was loaded onto its mesh.
    """
    configure_logs(log_level)
    if request_id is not None:
        check_request_id(request_id)
    screen = AnswerScreen(is_quiet=json_output)
    if prompt_file is not None:
        prompt = _read_prompt(context, prompt_file)
    more_sampling = sampling_options.more_sampling(context.params)
    if coordinator is not None:
        _ask(
            context, screen, coordinator, state_dir, model=str(model or ""), prompt=prefix + prompt, chat=chat,
            length=length, temperature=temperature, top_k=min(k, MOST_K), top_p=p, seed=_signed(seed),
            ignore_eos=ignore_eos, stop=stop or [], **more_sampling,
        )  # fmt: skip
        return
    if model is None:
        raise InputError("--model is missing: name a model's directory or a .gguf file (--help explains)")
    # Only then, so that two runs on one machine do not fight for a port that neither needs.
    is_master_named = any(_is_given(context, name) for name in ("master_ip", "master_port"))
    master_address = host_port(master_ip, master_port) if is_master_named else None
    if nodes is not None and use_gpu:
        raise InputError("--use-gpu is for nodes that this command starts; give it to each shardnode of --nodes")
    check_together(context.params, lambda name: _is_given(context, name))
    weights = weight_memory(
        memory_window=memory_window, window_bytes=window_bytes, page_cache=page_cache,
        reads_in_flight=reads_in_flight, read_bytes=read_bytes, read_timeout_seconds=read_timeout_seconds,
    )  # fmt: skip
    # Mistakes are told before anything is imported that takes time.
    from coordinator.answering.requests import Ask, Message
    from coordinator.checkpoints.model_place import find_model
    from coordinator.engine.sampling_params import SamplingParams, check_seed

    kv_bytes = parse_size(kv_budget_bytes, "--kv-budget-bytes")
    check_answer(length=length, memory_budget=memory_budget, has_nodes=nodes is not None, backend=backend)
    check_activations(activations, backend, use_gpu=use_gpu)
    travel = Travel(dtype=wire_dtype, rounds=rounds)
    check_listeners(metrics_port, master_address)
    check_seed(seed)
    text = prefix + prompt
    ask = Ask(
        prompt="" if chat else text, messages=(Message(role="user", content=text),) if chat else (),
        sampling=SamplingParams(temperature=temperature, top_k=k, top_p=p, **more_sampling), seed=seed,
        most_tokens=length, stop=tuple(stop or ()), ignore_eos=ignore_eos, request_id=request_id or new_request_id(),
    )  # fmt: skip
    addresses: list[str] = []
    mesh = None
    if nodes is not None:
        from common.trust.certificates import NAME_PATTERN
        from coordinator.membership.reach import owner_access
        from coordinator.membership.state import default_state_directory
        from coordinator.ranks.transports.connecting import parse_node_list

        names = [name.strip() for name in nodes.split(",")]
        if all(NAME_PATTERN.fullmatch(name) for name in names):
            addresses, mesh = names, owner_access(state_dir or default_state_directory())
        else:
            addresses = parse_node_list(nodes, insecure=insecure)
    check_cut(len(addresses) or world_size, split_strategy, weights_dtype)
    find_model(model)
    with ExitStack() as closing:
        closing.enter_context(screen)
        screen.wait("starting")
        # Here and not at the top: --help must not wait for it.
        from coordinator.tokenizer import Nursery, TokenizerApart

        nursery = Nursery.of_program()
        closing.callback(nursery.close)
        tokenizer = TokenizerApart(nursery, model)
        closing.callback(tokenizer.close)
        tokenizer.begin()
        from coordinator.answering.run_options import RunOptions

        run = RunOptions(
            weights=weights, memory_budget=memory_budget, kv_budget_bytes=kv_bytes,
            node_addresses=addresses, mesh=mesh, backend=backend, use_gpu=use_gpu, travel=travel,
            activations=activations,
        )  # fmt: skip
        local = None
        if nodes is None:  # only now: what is refused starts nothing
            # To ask torch for a GPU makes a process that must not be forked.
            local = LocalNodes(forks=has_begun() and not use_gpu)
            closing.callback(local.close)
        # While the pool imports what nodes need.
        from coordinator.cli.answer_here import LocalRequest, run_request
        from coordinator.models.local_model import ModelOptions

        run_request(LocalRequest(
            ask=ask, tokenizer=tokenizer, json_output=json_output, run=run,
            master_address=master_address, metrics_port=metrics_port,
            model=ModelOptions(
                model=model, world_size=len(addresses) or world_size, split_strategy=split_strategy,
                save_dir=str(save_dir), split_bin=split_bin, weights_dtype=weights_dtype, with_nodes=nodes is None,
                keeps_blocks=backend == NATIVE and not use_gpu,
            ),
        ), local, screen)  # fmt: skip


MOST_K = (1 << 31) - 1
"""Of a message; more is as good as all, as it is in any vocabulary."""
ASKED = {
    "coordinator", "state_dir", "model", "prompt", "prompt_file", "prefix", "chat", "length", "temperature", "k", "p",
    "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "seed",
    "ignore_eos", "stop", "request_id", "json_output", "log_level",
}  # fmt: skip
"""What a running coordinator may be asked; the other options are of nodes that this command starts or reaches."""


def _ask(context: typer.Context, screen: AnswerScreen, address: str, state_dir: Path | None, **request: Any) -> None:
    """Have a running coordinator answer. Raises: InputError: options that are not for it to be told."""
    given = [name for name in context.params if name not in ASKED and _is_given(context, name)]
    if given:
        option = min(given).replace("_", "-")
        raise InputError(f"--{option} and --coordinator do not go together: the coordinator's nodes run already")
    from coordinator.cli.answer_there import ask_coordinator
    from coordinator.membership.state import default_state_directory
    from protos.shardmesh.v1 import generation_pb2

    try:
        message = generation_pb2.GenerateRequest(**request)
    except UnicodeEncodeError as error:
        raise InputError(
            "--prompt or --prefix is no text in UTF-8; is your terminal set to another encoding?"
        ) from error
    except ValueError as error:
        raise InputError(f"--length, --k, --seed, --logit-bias or --logprobs is out of range: {error}") from error
    with screen:
        ask_coordinator(
            address,
            state_dir or default_state_directory(),
            message,
            screen,
            json_output=context.params["json_output"],
            request_id=context.params["request_id"] or "",
        )


def _read_prompt(context: typer.Context, place: Path) -> str:
    """Return the prompt of a file or of stdin. Raises: InputError: there is another one, or it cannot be read."""
    if _is_given(context, "prompt"):
        raise InputError("--prompt and --prompt-file are both given; leave one out")
    return text_from(place, "--prompt-file")


def _signed(seed: int) -> int:
    """Return the seed of 64 signed bits, as messages have it, that draws as this one does."""
    return seed - (1 << 64) if 1 << 63 <= seed < 1 << 64 else seed


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"
