"""How does a port stay there for who may use it, whatever others do to it?

Covers: a bounded number of connections and threads, a limit to how long somebody may take to be let in; who stays
between two requests; telling and counting who was sent away. Does not cover: whose place goes (seats.py), whose turn
it is (turns.py), what is answered (page_server.py, common/trust/gate.py, shardnode/listeners/frames.py), TLS and who
may come in (common/trust).
Threads: one that accepts, one for each connection whose turn has come, kept for a while for the next one: who is
silent, or waits for his turn, costs a place and no thread.

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

from common.program.listening import has_ended, host_of, listening_socket
from common.program.logs import entry
from common.program.passing_threads import PassingThreads
from common.program.places import Caller, Places
from common.program.reasons import CROWDED, FAST, MANY, NO_FILES, REMOVED, SLOW, UNTRUSTED, WORDS
from common.program.seats import Seats
from common.program.turns import Turns

AT_ONCE = 64
"""Of who waits, before those are looked at who have sent something."""
REFUSED_SECONDS = 0.008
"""So long the next ones wait for each that is sent away: whoever comes again at once, and is not let in, has the port
do little for it, and keeps others waiting for listening.BACKLOG times that at most."""
KNOWN_SECONDS = 0.012
"""Processor time that it takes about to let somebody in, and to have a server behind hear him."""
PAUSE_SECONDS = 0.1
END_SECONDS = 2.0
TELL_SECONDS = 60.0

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
        self._seats, self._turns = Seats(places), Turns(places)
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
            self._turns.count(caller, len(others) * KNOWN_SECONDS)
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
                ready = selector.select(self._look_at_clock())
                if any(key.fileobj is self._ending for key, _ in ready) and not self._ending.recv(1):
                    break
                if self._is_deaf and self._listener.fileno() >= 0:
                    selector.unregister(self._listener)
                    self._listener.close()
                spoken = [key.data for key, _ in ready if key.data is not None]
                for caller in spoken:
                    selector.unregister(caller.connection)
                refused = self._speak(spoken)
                if any(key.fileobj is self._listener for key, _ in ready):
                    refused += self._accept_some()
                if refused:
                    time.sleep(refused * REFUSED_SECONDS)
            silent = [key.data for key in selector.get_map().values() if key.data is not None]
        for caller in silent:
            self._leave(caller)

    def _accept_some(self) -> int:
        """Take some of who waits, and return how many were sent away for it."""
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
                    break
                continue
            refused += self._take(connection, host_of(address))
        return refused

    def _look_at_clock(self) -> float | None:
        """Cut whose time is over, begin with those whose turn has come, and return in how many seconds there is more
        of either; None: never.
        """
        with self._lock:
            late = self._seats.late()
            self._cut([caller for caller in late if caller.is_resting])
            for caller in (caller for caller in late if not caller.is_resting):
                self._send_away([caller], FAST if self._turns.is_waiting(caller) else SLOW)
            turns = self._turns.next()
        for caller in turns:
            self._begin(caller)
        with self._lock:
            ends = (self._seats.next_end(), self._turns.next_seconds())
        return min((seconds for seconds in ends if seconds is not None), default=None)

    def _speak(self, spoken: list[Caller]) -> int:
        """Have those wait for their turn that have sent something; return how many went for them."""
        refused = 0
        for caller in spoken:
            if caller not in self._seats.taken or has_ended(caller.connection):
                self._leave(caller)
                continue
            with self._lock:
                loser = self._seats.speak(caller)
                self._turns.wait(caller, self._seats.counted_as(caller.host))
                if loser is not None:
                    self._send_away([loser], CROWDED)
                    refused += 1
        return refused

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
        """Give a connection whose turn has come a thread."""
        with self._lock:
            if has_thread := self._thread_count < self._places.threads:
                self._thread_count += 1
            else:
                self.tell(caller.host, WORDS[CROWDED], CROWDED)
                self._turns.count(caller, 0.0)
        if has_thread:
            self._threads.submit(self._serve, caller)
        else:
            self._leave(caller)

    def _send_away(self, callers: list[Caller], reason: str) -> None:
        """Cut connections, each for the same reason, and say so."""
        for caller in callers:
            self.tell(caller.host, WORDS[reason], reason)
        self._cut(callers)

    def _cut(self, callers: list[Caller]) -> None:
        """Take their places from some; their threads end, since nothing comes or goes any more."""
        for caller in callers:
            self._seats.leave(caller)
            with suppress(OSError):  # of a TLS connection too: this is the socket's own, and known to the kernel alone
                socket.socket.shutdown(caller.connection, socket.SHUT_RDWR)
            if self._turns.forget(caller):  # neither a thread nor the selector has it, to close it
                caller.connection.close()

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
                self._turns.count(caller, 0.0 if caller.is_let_in else time.thread_time() - began)
                self._thread_count -= 1
                self._lock.notify_all()
