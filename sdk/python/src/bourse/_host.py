"""Runs modules of a daemon in this one process, for a developer: prints are seen, and breakpoints work.

    host -> node: hello, for each lane; then each lane is a worker of its own
    node -> host: stop, when another process serves the module, or the daemon ends

All user code runs on the main thread, as it does in an instance. A module has several connections, its *lanes*, and
each runs one call at a time. While a function waits for others, its lane is busy, and the main thread runs what comes over
the other lanes on top of it; before it waits, a lane of every module is made free. So functions that call each other,
and themselves, need no second thread and no second process.

Differences from instances: calls have no time limit while they run here, threads and `submit` do not make calls run
side by side, and `bourse.instance` is one place for all calls of a module.
"""

from __future__ import annotations

import signal
import sys
import types
from time import monotonic
from typing import Callable, Optional

import zmq

from . import _context, _log, _stepping
from . import _loops as loops
from . import _messages as messages
from ._errors import BourseError, NoNode
from ._lanes import Lane
from ._modules import Modules

CONNECT_SECONDS = 10.0  # how long the daemon may take to welcome us
LOOK_SECONDS = 0.5  # how often the files are looked at
SOCKETS_MAX = 8192
STACK_MAX = 20_000  # Python frames: calls stand on top of each other


class Host:
    """The main thread, and the lanes of all modules."""

    def __init__(self, endpoint: str, secret: bytes, modules: Modules) -> None:
        self.endpoint = endpoint
        self.secret = secret
        self.modules = modules
        self.log: Optional[_log.Buffer] = None
        self.lanes: list[Lane] = []
        self.stack: list[Lane] = []  # those whose calls run, the innermost last
        self.serving = False  # all were accepted once
        self.stopping = False
        self.failed: Optional[BourseError] = None
        self.alive: Callable[[], bool] = lambda: True  # whether the daemon is worth waiting for
        self.daemon_stays = True  # when we leave
        self.zmq = zmq.Context()
        self.zmq.max_sockets = SOCKETS_MAX
        self._poller = zmq.Poller()
        self._polling = False
        self._away = False
        self._next_look = 0.0

    def start(self) -> None:
        """Connect a lane of each module; once this returns, they are served."""
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        sys.setrecursionlimit(max(sys.getrecursionlimit(), STACK_MAX))
        _stepping.install()
        self.log = _log.install()
        self.make_room()
        if not self._await_welcome():
            raise NoNode(f"no answer from {self.endpoint} within {CONNECT_SECONDS:g} s", hint="Is the daemon running?")
        if self.failed is not None:
            raise self.failed
        self.serving = True

    def serve(self) -> None:
        """Until Ctrl-C, or until the daemon wants no more."""
        try:
            while not self.stopping:
                self.turn(LOOK_SECONDS)
                if monotonic() >= self._next_look:
                    self._next_look = monotonic() + LOOK_SECONDS
                    self._reload()
                    if not self.alive():
                        return
        except KeyboardInterrupt:
            pass
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second one does not wait
        if self.failed is not None:
            raise self.failed

    def leave(self) -> None:
        """Say bye on every lane."""
        for served in self.modules.served.values():
            served.stop()
        self._drop(*self.lanes)
        self.zmq.term()

    def make_room(self) -> None:
        """See to it that of every module a lane is free."""
        free = {lane.served for lane in self.lanes if lane.free() and lane.description == lane.served.loaded.description}
        for served in self.modules.served.values():
            if served not in free:
                lane = Lane(self, served)
                lane.connect()
                self.lanes.append(lane)
                for socket in lane.sockets:
                    self._poller.register(socket, zmq.POLLIN)

    def turn(self, seconds: float, listen: bool = False) -> None:
        """Run a call that has come; if there is none, wait for messages. `listen`: run nothing."""
        lane = None if listen else self._next()
        if lane is not None:
            self._run(lane)
            return
        self._polling = True
        try:
            if self.stopping:
                return
            ready = dict(self._poller.poll(max(1, int(seconds * 1000)) if seconds > 0 else 0))
        finally:
            self._polling = False
        for lane in list(self.lanes):
            socket, monitor = lane.sockets
            if socket in ready:
                lane.drain()
            if monitor in ready:
                lane.look()
            self._attend(lane)
        self._tell_whether_away()

    # ------------------------------------------------------------------ calls

    def _next(self) -> Optional[Lane]:
        """The lane whose call runs next: of the same tree as what runs now, if there is one."""
        waiting = [lane for lane in self.lanes if lane.backlog and not lane.running]
        if len(waiting) > 1 and self.stack:
            root = self.stack[-1].root
            for lane in waiting:
                if messages.ToWorker.FromString(lane.backlog[0][2]).invoke.root == root:
                    return lane
        return waiting[0] if waiting else None

    def _run(self, lane: Lane) -> None:
        _, _, header, payload = lane.backlog.popleft()
        invoke = messages.ToWorker.FromString(header).invoke
        outer = _context.running
        lane.root, lane.running = invoke.root or invoke.call, True
        beneath = self.stack[-1].served if self.stack else None
        self.stack.append(lane)
        lane.served.enter(beneath)
        try:
            with loops.none():
                lane._run(invoke, header, payload)
        finally:
            lane.served.exit(beneath)
            self.stack.pop()
            lane.running = False
            _context.running = outer
            if signal.getsignal(signal.SIGINT) != self._on_signal:  # pdb takes it
                signal.signal(signal.SIGINT, self._on_signal)

    # ------------------------------------------------------------------ lanes

    def _attend(self, lane: Lane) -> None:
        """Sees to what the node has said to a lane, apart from calls."""
        if lane.refused is not None:
            error, lane.refused = lane.refused, None
            if error.code == "module_failed" and self.serving:
                self._drop(lane)
                self.modules.refused(lane.served, error)
                return
            if error.code == "module_failed":
                error.message = f"{lane.served.name} can't be served: {error.message}"
            if error.code != "shutting_down":
                self.failed = self.failed or error
                self.stopping = True
        if not lane.stopping or lane.running or lane.backlog:
            return
        if not lane.replaced:
            lane._tell("bye")  # the daemon ends; the lane waits for the next one
            lane.stopping, lane.welcome = False, False
            return
        current = lane.description == lane.served.loaded.description
        self._drop(lane)
        if current and not any(other.served is lane.served for other in self.lanes):
            say(f"another process serves {lane.served.name} now")
            self.modules.served.pop(lane.served.name, None)
            self.stopping = not self.modules.served

    def _drop(self, *lanes: Lane) -> None:
        for lane in lanes:
            self.lanes.remove(lane)
            for socket in lane.sockets:
                self._poller.unregister(socket)
            lane.bye()
        for lane in lanes:
            if self.daemon_stays:
                lane.await_end()
            lane.close()

    def _await_welcome(self) -> bool:
        """Until the node has accepted every lane, has refused one for good, or is gone. Whether it was in time."""
        deadline = monotonic() + CONNECT_SECONDS
        while not self.stopping and any(not (lane.welcome or lane.lost) for lane in self.lanes):
            if monotonic() > deadline:
                return False
            self.turn(0.1, listen=True)
        return True

    def _tell_whether_away(self) -> None:
        away = bool(self.lanes) and all(lane.lost for lane in self.lanes)
        if away and not self._away:
            say("the daemon is gone; waiting for it to come back")
            self._away = True
        elif self._away and any(lane.welcome for lane in self.lanes):
            say("the daemon is back")
            self._away = False

    def _reload(self) -> None:
        """Between calls: take over what was saved."""
        if not self.modules.changed():
            return
        gone = self.modules.reload()
        for lane in list(self.lanes):
            if lane.served in gone:
                self._drop(lane)
            elif lane.description == lane.served.loaded.description:
                lane.use(lane.served.loaded)
            # Else a lane with the new description replaces it: it is told to stop.
        self.make_room()
        self._await_welcome()  # so that what is said is true for the next call
        for name in self.modules.loaded_again:
            say(f"{name} was loaded again")
        for served in gone:
            say(f"{served.name} is served no more")

    def _on_signal(self, _number: int, _frame: Optional[types.FrameType]) -> None:
        user_code = bool(self.stack) and self.stack[-1].busy
        if not user_code:
            self.stopping = True
        if user_code or self._polling:
            raise KeyboardInterrupt


def say(text: str) -> None:
    """Tell the developer."""
    sys.stderr.write(f"bourse: {text}\n")
    sys.stderr.flush()
