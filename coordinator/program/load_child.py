"""The process that does a load, as the coordinator program sees it: started, listened to, ended.

Covers: pipes, what the end of the process means. Does not cover: what it does (models/load_process.py), what the
program makes of its news (model_worker.py).
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from common.errors import InternalError, ResourceError
from coordinator.models.load_messages import GO, Brought, Failed, LoadOrder, News, news_of

COMMAND = (sys.executable, "-m", "coordinator.models.load_process")
PACKAGES = Path(__file__).resolve().parents[2]
"""Where our packages lie: the process starts there, so that it runs what this one does, and no module of the directory
that somebody has started the program in."""
END_SECONDS = 3.0


class LoadChild:
    """One such process. Whoever has started it listens to its end, or closes it."""

    def __init__(self, order: LoadOrder, command: Sequence[str] = COMMAND) -> None:
        """Start it. Raises: ResourceError: there is no room for another process."""
        self._ending = threading.Lock()
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True, cwd=PACKAGES
            )
        except OSError as error:
            raise ResourceError(f"no process can be started for the load ({error.strerror}); is the memory full?"
                                ) from error  # fmt: skip
        assert self._process.stdin is not None  # Popen was asked for pipes
        assert self._process.stdout is not None
        self._orders, self._news = self._process.stdin, self._process.stdout
        self._write(order.line())

    def go_on(self) -> None:
        """Let it change something: its plan is written down."""
        self._write(GO)

    def news(self) -> Iterator[News]:
        """Yield what it says, until it has done its work.

        Raises: what it has failed with; InternalError, ResourceError: it ended without a word.
        """
        buffered = b""
        while data := self._news.read(65536):
            *lines, buffered = (buffered + data).split(b"\n")
            for line in lines:
                news = news_of(line)
                if isinstance(news, Failed):
                    raise news.error()
                yield news
                if isinstance(news, Brought):
                    return
        raise self._death()

    def close(self) -> None:
        """End it, and let go of its pipes; by whoever has listened."""
        self.end()
        self._news.close()

    def end(self) -> None:
        """End it, if it has not ended, and wait for that. From any thread, and more than once."""
        with self._ending:
            with suppress(OSError):
                self._orders.close()  # its lifeline
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                with suppress(subprocess.TimeoutExpired):  # it waits for a disk, inside the kernel
                    self._process.wait(1.0)

    def _write(self, line: bytes) -> None:
        with suppress(OSError, ValueError):  # it has ended, or was: `news` tells why
            self._orders.write(line)

    def _death(self) -> InternalError | ResourceError:
        """Return what it means that it has ended without a word."""
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return ResourceError("the process that loads it was killed; most likely memory ran out: have other "
                                 "programs use less, and load again, it goes on from there")  # fmt: skip
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return InternalError(f"the process that loads it has ended {how} and without a word; the coordinator's log may "
                             "say why; load again, and it goes on from there")  # fmt: skip
