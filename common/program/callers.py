"""How does a port stay there for who may use it, whatever others do to it?

Covers: a bounded number of connections and threads, a limit to how long somebody may take to be let in; who stays
between two requests; telling and counting who was sent away. Does not cover: whose place goes (places.py), what is
answered (page_server.py, common/trust/gate.py, shardnode/listeners/frames.py), TLS and who may come in (common/trust).
Threads: one that accepts, one for each connection that has sent something, kept for a while for the next one: who is
silent costs a place and no thread.

Who is not let in yet has a few seconds, handshake included, so one that is idle or slow holds its place no longer.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from common.program.listening import host_of, listening_socket
from common.program.logs import entry
from common.program.passing_threads import PassingThreads
from common.program.places import Caller, Places, Seats

AT_ONCE = 64
"""Of who waits, before those are looked at who have sent something."""
REFUSED_SECONDS = 0.004
"""So long the next ones wait for each that is sent away: whoever comes again at once, and is not let in, has the port
do little for it, and keeps others waiting for listening.BACKLOG times that at most."""
KNOWN_SECONDS, CUT_SECONDS = 0.005, 0.0005
"""Processor time that it takes about to let somebody in; to give a silent one a place and cut him."""
PAUSE_SECONDS = 0.1
END_SECONDS = 2.0
TELL_SECONDS = 60.0
CROWDED, FAST, SLOW, MANY, UNTRUSTED, REMOVED, NO_FILES = (
    "crowded", "fast", "slow", "many", "untrusted", "removed", "no_files"
)  # fmt: skip
"""Why a connection was sent away: no place was left, or somebody else's was worth more; its address opens too many a
second; it was not let in in time; its peer has too many; he is not believed; not any more; no file could be opened."""
REASONS = (CROWDED, FAST, SLOW, MANY, UNTRUSTED, REMOVED, NO_FILES)
WORDS = {
    CROWDED: "all places are taken, and its address has more than others",
    FAST: "its address opens too many connections a second",
    SLOW: "it has not said in time who it is",
    MANY: "its peer has too many connections, of which this one is the oldest",
    REMOVED: "its peer is no member of the mesh any more",
    NO_FILES: "this process may open no more files (ulimit -n; LimitNOFILE of a unit)",
}

log = logging.getLogger(__name__)


class Callers:
    """The connections of one address. Raises on construction: OSError."""

    def __init__(
        self, host: str, port: int, places: Places, answer: Callable[[Caller], None], *, name: str, refused: str,
        failed: str, count: Callable[[str], None] = lambda reason: None,
    ) -> None:  # fmt: skip
        """Listen.

        Args: answer: called for each connection in a thread of its own, once it has sent something; it returns when
        that is to be closed, and may raise PermissionError, in words, for who is not believed; name: of the threads;
        refused, failed: what the log says of that, and of what else goes wrong; count: called with one of REASONS for
        each connection that is sent away.
        """
        self._places, self._answer, self._name = places, answer, name
        self._refused, self._failed, self._note = refused, failed, count
        self._seats = Seats(places)
        self._threads, self._thread_count = PassingThreads(places.threads, f"{name} caller"), 0
        self._lock = threading.Condition()
        self._told_at: dict[str, float] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = listening_socket(host, port)
        self.port = int(self._listener.getsockname()[1])
        self._ending, self._end = socket.socketpair()
        self._is_deaf = False
        self._thread = threading.Thread(target=self._accept, name=name, daemon=True)
        self._thread.start()

    def take_nobody(self) -> None:
        """Listen no more; who is there may go on. May be called twice, and before `close`."""
        self._is_deaf = True
        with suppress(OSError):
            self._end.send(b"-")

    def close(self) -> None:
        """Listen no more and end all connections. May be called twice."""
        self._end.close()
        self._thread.join()
        with self._lock:
            self._cut([caller for caller in self._seats.taken if caller.is_resting or not caller.is_let_in])
            self._lock.wait_for(lambda: not self._thread_count, self._places.close_seconds)
            self._cut(list(self._seats.taken))
            self._lock.wait_for(lambda: not self._thread_count, END_SECONDS)
        self._threads.shutdown(wait=False)

    def count(self) -> int:
        """Return how many connections there are. Without a lock: a moment's view."""
        return len(self._seats.taken)

    def replace(self, caller: Caller, made: Callable[[socket.socket], socket.socket]) -> bool:
        """Put what is made of a connection in its place; tell False if it was cut meanwhile.

        Who cuts a connection has to find it, during the handshake above all.
        """
        with self._lock:
            if caller not in self._seats.taken:
                return False
            caller.connection = made(caller.connection)
            return True

    def stay(self, caller: Caller, most: int = 0) -> bool:
        """Let somebody in for as long as he likes; tell False if he was cut meanwhile.

        Args: most: how often he may be there under his name: his oldest connections go; 0: as often as he likes.
        """
        with self._lock:
            if caller not in self._seats.taken:
                return False
            others = self._seats.let_in(caller, most)
            self._send_away(others, MANY)
            self._seats.came_in_vain(caller, len(others) * KNOWN_SECONDS)
            return True

    def admit(self, caller: Caller) -> None:
        """Let somebody in for as long as he may be there anyway."""
        with self._lock:
            self._seats.admit(caller)

    def look_again(self, is_good: Callable[[Caller], bool]) -> None:
        """End the connections of who was let in and is good no more. From any thread."""
        with self._lock:
            self._send_away([one for one in self._seats.taken if one.is_let_in and not is_good(one)], REMOVED)

    def rest(self, caller: Caller, seconds: float) -> bool:
        """Let somebody who is let in wait so long for what he asks next; tell False if he was cut meanwhile."""
        with self._lock:
            self._seats.rest(caller, seconds)
            caller.connection.settimeout(seconds)
            return caller in self._seats.taken

    def ask(self, caller: Caller) -> bool:
        """Note that he asks, which may take as long as the first time; tell False if he was cut meanwhile."""
        with self._lock:
            self._seats.ask(caller)
            caller.connection.settimeout(self._places.seconds)
            return caller in self._seats.taken

    def tell(self, host: str, why: str, reason: str = UNTRUSTED) -> None:
        """Count that somebody is sent away, and log why, but not each time that it is for the same reason."""
        self._note(reason)
        if (now := time.monotonic()) - self._told_at.get(reason, -TELL_SECONDS) >= TELL_SECONDS:
            self._told_at[reason] = now
            log.warning("%s", entry(self._refused, caller=host, error=why, port=self._name))

    def _accept(self) -> None:
        """Take callers, begin with those that have sent something, cut those whose time is over; else sleep."""
        with self._listener, self._ending, self._selector as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._ending, selectors.EVENT_READ)
            while True:
                ready = selector.select(self._cut_late())
                if any(key.fileobj is self._ending for key, _ in ready) and not self._ending.recv(1):
                    break
                if self._is_deaf and self._listener.fileno() >= 0:
                    selector.unregister(self._listener)
                    self._listener.close()
                for key, _ in ready:
                    if key.data is not None:
                        selector.unregister(key.fileobj)
                        self._begin(key.data)
                    elif key.fileobj is self._listener:
                        self._accept_some()
            silent = [key.data for key in selector.get_map().values() if key.data is not None]
        for caller in silent:
            self._leave(caller)

    def _accept_some(self) -> None:
        """Take some of who waits. Whoever is sent away for it has the next ones wait a little: it is cheap for him."""
        refused = 0
        for _ in range(0 if self._is_deaf else AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except BlockingIOError:
                break
            except OSError as error:  # he has gone already; or there is no descriptor left just now, and he waits
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self.tell("", WORDS[NO_FILES], NO_FILES)
                    time.sleep(PAUSE_SECONDS)
                    return
                continue
            refused += self._take(connection, host_of(address))
        if refused:
            time.sleep(refused * REFUSED_SECONDS)

    def _cut_late(self) -> float | None:
        """Cut whose time is over, and return in how many seconds the next one's is; None: nobody's ends."""
        with self._lock:
            late = self._seats.late()
            self._send_away([caller for caller in late if not caller.is_resting], SLOW)
            self._cut([caller for caller in late if caller.is_resting])
            return self._seats.next_end()

    def _take(self, connection: socket.socket, host: str) -> bool:
        """Give a connection a place, or close it; it has a thread once it has sent something.

        Returns: whether somebody was sent away, he or another one.
        """
        with self._lock:
            is_fast = self._seats.is_too_fast(host)
        if is_fast:  # nothing is made for it: there may be many
            self.tell(host, WORDS[FAST], FAST)
            connection.close()
            return True
        connection.settimeout(self._places.seconds)
        caller = Caller(host=host, deadline=time.monotonic() + self._places.seconds, connection=connection)
        with self._lock:
            loser = self._seats.sit(caller)
            if loser is not None:
                self._send_away([loser], CROWDED)
        if loser is caller:
            connection.close()
        else:
            self._selector.register(connection, selectors.EVENT_READ, caller)
        return loser is not None

    def _begin(self, caller: Caller) -> None:
        """Give a connection that has sent something, or has ended, a thread."""
        with self._lock:
            is_there = caller in self._seats.taken
            if has_thread := is_there and self._thread_count < self._places.threads:
                self._thread_count += 1
            elif is_there:
                self.tell(caller.host, WORDS[CROWDED], CROWDED)
        if has_thread:
            self._threads.submit(self._serve, caller)
        else:
            self._leave(caller)

    def _send_away(self, callers: list[Caller], reason: str) -> None:
        """Cut connections, each for the same reason, and say so."""
        for caller in callers:
            self.tell(caller.host, WORDS[reason], reason)
            if not caller.is_let_in:
                self._seats.came_in_vain(caller, CUT_SECONDS)
        self._cut(callers)

    def _cut(self, callers: list[Caller]) -> None:
        """Take their places from some; their threads end, since nothing comes or goes any more."""
        for caller in callers:
            self._seats.leave(caller)
            with suppress(OSError):  # of a TLS connection too: this is the socket's own, and known to the kernel alone
                socket.socket.shutdown(caller.connection, socket.SHUT_RDWR)

    def _leave(self, caller: Caller) -> None:
        """Close a connection and give its place back."""
        with suppress(OSError):
            caller.connection.close()
        with self._lock:
            self._seats.leave(caller)

    def _serve(self, caller: Caller) -> None:
        began = time.thread_time()
        try:
            self._answer(caller)
        except PermissionError as error:
            self.tell(caller.host, str(error))
        except OSError:  # who breaks off, is too slow, or speaks no TLS, has no answer
            pass
        except Exception as error:  # the thread's edge: one that cannot be answered is no reason to end
            log.error("%s", entry(self._failed, caller=caller.host), exc_info=error)
        finally:
            self._leave(caller)
            with self._lock:
                if not caller.is_let_in:
                    self._seats.came_in_vain(caller, time.thread_time() - began)
                self._thread_count -= 1
                self._lock.notify_all()
