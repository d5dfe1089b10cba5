"""Do nodes that a person started at addresses of IPv6 answer what transformers does, and what of wrong addresses?

Covers: a real model on real processes over the loopback of IPv6, in frames and over gRPC; addresses of links.
Does not cover: meshes (test_mesh_over_ipv6.py), other wrong addresses (test_wrong_options.py).
"""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from common.errors import EXIT_INPUT, EXIT_OK
from tests.e2e.conftest import END_SECONDS, RunHere
from tests.golden.smollm2_prompts import GOLDEN, PROMPTS
from tests.support.cli import Shell
from tests.support.mesh import sliced
from tests.support.waiting import wait_until
from tests.unit.test_rpc_addresses import has_ipv6

PROMPT, LENGTH = "german", 12
LIMIT_SECONDS = 60.0


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_nodes_at_ipv6_addresses_answer_what_transformers_does(
    shell: Shell, here: RunHere, demo_model: Path, tmp_path: Path
) -> None:
    """Token for token, in frames and over gRPC; where they listen is printed in brackets, as --nodes takes it."""
    entries = json.loads(GOLDEN.read_text(encoding="utf-8"))["prompts"]
    (expected,) = [entry["token_ids"][:LENGTH] for entry in entries if entry["name"] == PROMPT]
    asked = ["generate", "--model", str(demo_model), "--save-dir", str(tmp_path), "--prompt", PROMPTS[PROMPT],
             "--length", str(LENGTH), "--temperature", "0", "--json"]  # fmt: skip
    with sliced(demo_model, tmp_path, world_size=2):
        nodes = [
            shell.start("shardnode", "--slice-dir", str(tmp_path / f"node{rank}"), "--listen", "[::1]:0",
                        "--metrics-port", "0", "--threads", "1")
            for rank in range(2)
        ]  # fmt: skip
        for node in nodes:
            wait_until(
                lambda node=node: "metrics on" in node.err or node.process.poll() is not None,
                limit_seconds=LIMIT_SECONDS, what="a node that listens",
            )  # fmt: skip
        addresses = ",".join(re.findall(r"serving \S+ on (\[::1\]:\d+)$", node.err, re.MULTILINE)[0] for node in nodes)
        for rounds in ("frames", "grpc"):
            finished = here("coordinator-cli", *asked, "--nodes", addresses, "--rounds", rounds)
            assert (finished.code, finished.err) == (EXIT_OK, "")
            assert json.loads(finished.out)["token_ids"] == expected
    for node in nodes:
        node.process.send_signal(signal.SIGTERM)
        assert node.finish(END_SECONDS).code == EXIT_OK


@pytest.mark.parametrize(
    ("address", "words"),
    [("[fe80::1]:50051", "of which link fe80::1 is"), ("[fe80::1%nothere9]:50051", "no interface nothere9")],
)
def test_an_address_of_a_link_that_cannot_be_used_is_one_line(
    here: RunHere, sliced_once: Path, address: str, words: str
) -> None:
    """Of both programs, whether they listen there or connect."""
    node = here("shardnode", "--slice-dir", str(sliced_once / "split" / "node0"), "--listen", address, "--insecure")
    assert words in node.error_line("shardnode", EXIT_INPUT)
    asking = ["generate", "--model", str(sliced_once), "--save-dir", "one", "--nodes", address, "--insecure"]
    assert words in here("coordinator-cli", *asking).error_line("coordinator-cli", EXIT_INPUT)
