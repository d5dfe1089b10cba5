"""Does a program go on, and answer others, whatever a model's tokenizer or chat template does?

Covers: coordinator/tokenizer/apart.py and the processes it has, killed and endless ones too.
Does not cover: what tokenizers say (test_tokenizer_directory.py and its kin), answers (test_answers.py).
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from common.errors import CheckpointError, InputError, ModelNotFound
from coordinator.tokenizer import Nursery, TokenizerApart, apart, load_tokenizer
from coordinator.tokenizer.apart_limits import open_nothing_more
from tests.support.hostile_tokenizers import ENDLESS, PANICS, TEMPLATES, panicking_json, write_model
from tests.support.tokenizer_files import CHATS, TEXTS
from tests.support.waiting import wait_until

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
OWN_END = """
import os, sys, signal, threading
from pathlib import Path
from coordinator.tokenizer import Nursery, TokenizerApart
from coordinator.tokenizer.nursery_early import begin_early
if sys.argv[2] == "early":
    begin_early()
nursery = Nursery.of_program()
tokenizer = TokenizerApart(nursery, Path(sys.argv[1]))
tokenizer.encode("a")
threading.Thread(target=tokenizer.chat_prompt, args=([{"role": "user", "content": "a"}],), daemon=True).start()
print(nursery._process_id, flush=True)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    """A nursery that ends with the test."""
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks may take a fifth of a second."""
    for name in ("RENDER_SECONDS", "ENCODE_SECONDS", "DECODE_SECONDS"):
        monkeypatch.setattr(apart, name, 0.2)


def test_it_says_what_a_tokenizer_in_this_process_says(tmp_path: Path, nursery: Nursery) -> None:
    """The same ids, texts and prompts, for every text that tokenizers differ on."""
    model = write_model(tmp_path / "model", template=CHATML)
    here, there = load_tokenizer(model), TokenizerApart(nursery, model)
    for text in TEXTS:
        ids = here.encode(text)
        assert there.encode(text) == ids
        assert there.decode(ids) == here.decode(ids)
    assert [there.chat_prompt(chat) for chat in CHATS] == [here.chat_prompt(chat) for chat in CHATS]
    assert (there.bos_id, there.eos_ids, there.vocab_size) == (here.bos_id, here.eos_ids, here.vocab_size)


def test_every_panic_is_an_error_of_its_request_alone(tmp_path: Path, nursery: Nursery) -> None:
    """pyo3's PanicException is no Exception; whoever asked was never answered."""
    good = TokenizerApart(nursery, write_model(tmp_path / "good"))
    for number, name in enumerate(PANICS):
        bad = write_model(tmp_path / str(number), tokenizer_json=panicking_json(name))
        with pytest.raises(CheckpointError):
            TokenizerApart(nursery, bad).encode("hello world")
        assert good.encode("hello")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("harm", TEMPLATES)
def test_a_template_without_end_is_ended(harm: str, tmp_path: Path, nursery: Nursery) -> None:
    """Also where Python would loop or allocate before the template's first line is run, folding constants."""
    tokenizer = TokenizerApart(nursery, write_model(tmp_path / "model", template=TEMPLATES[harm]))
    with pytest.raises(InputError, match="chat template"):
        tokenizer.chat_prompt(CHATS[0])
    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"


def test_a_template_without_end_delays_nobody_else(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other requests, of the same model too, are answered while it still runs."""
    tokenizer = TokenizerApart(nursery, write_model(tmp_path / "model", template=ENDLESS))
    tokenizer.encode("hello")
    monkeypatch.setattr(apart, "RENDER_SECONDS", 1.0)
    ended = threading.Event()

    def render() -> None:
        with pytest.raises(InputError):
            tokenizer.chat_prompt(CHATS[0])
        ended.set()

    thread = threading.Thread(target=render)
    thread.start()
    answers = [tokenizer.decode(tokenizer.encode("hello")) for _ in range(100)]
    was_under_way = not ended.is_set()
    thread.join()
    assert answers == ["hello"] * 100
    assert was_under_way


@pytest.mark.parametrize("who", ["worker", "reader", "nursery"])
def test_what_is_killed_is_there_again_unnoticed(who: str, tmp_path: Path, nursery: Nursery) -> None:
    """The kernel may end any of them when memory runs out."""
    tokenizer = TokenizerApart(nursery, write_model(tmp_path / "model"))
    ids = tokenizer.encode("hello")
    assert tokenizer._reader is not None
    victims = {
        "worker": [child.process_id for child, _ in tokenizer._idle],
        "reader": [tokenizer._reader.process_id],
        "nursery": [nursery._process_id],
    }
    for victim in victims[who]:
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda v=victim: not _runs(v), limit_seconds=10, what="it has ended")  # type: ignore[misc]
    assert tokenizer.encode("hello") == ids
    assert tokenizer.decode(ids) == "hello"


@pytest.mark.parametrize("how", ["early", "late"])
def test_nothing_is_left_when_the_program_is_killed(how: str, tmp_path: Path) -> None:
    """A worker in the midst of an endless template too."""
    model = write_model(tmp_path / "model", template=ENDLESS)
    with subprocess.Popen(
        [sys.executable, "-c", OWN_END, str(model), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        group = int(process.stdout.readline())
        wait_until(lambda: len(_group(group)) >= 4, limit_seconds=20, what="all of them run")
        process.communicate(b"\n")
    wait_until(lambda: not _group(group), limit_seconds=10, what="all of them have ended")


def test_a_worker_opens_nothing() -> None:
    """Neither a file nor a connection, whatever runs in it."""
    pid = os.fork()
    if pid == 0:
        open_nothing_more()
        failures = 0
        for opens in (lambda: socket.socket(), lambda: open(os.devnull)):  # noqa: SIM115 - it is not opened
            try:
                opens()
            except OSError:
                failures += 1
        os._exit(failures)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2


def test_a_missing_model_is_told_as_before(tmp_path: Path, nursery: Nursery) -> None:
    """Errors of reading keep their kind and words on their way."""
    with pytest.raises(ModelNotFound, match="nowhere"):
        TokenizerApart(nursery, tmp_path / "nowhere").encode("a")


def _runs(process_id: int) -> bool:
    try:
        return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _group(number: int) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.Error):
            continue
    return found


def test_who_forgets_a_tokenizer_leaves_no_socket_open(tmp_path: Path, nursery: Nursery) -> None:
    """Also in a cycle, as an error's traceback makes one: there the collector comes to sockets in any order."""
    complaints = list[str]()
    tokenizer = TokenizerApart(nursery, write_model(tmp_path / "model"))
    tokenizer.encode("hello")
    descriptors = [child.connection.fileno() for child, _ in tokenizer._idle]
    cycle: list[object] = [tokenizer]
    cycle.append(cycle)
    hook, sys.unraisablehook = sys.unraisablehook, lambda lost: complaints.append(str(lost.exc_value))
    try:
        del tokenizer, cycle
        gc.collect()
    finally:
        sys.unraisablehook = hook
    assert not complaints
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
