"""Answers the node while user code runs for long.

The main thread owns the worker's socket, and runs the user's code: a short call costs no change of thread. Once user code has
run for `GRACE` seconds, the watchdog takes the socket over, under the worker's lock, and answers pings, recalls and
cancels until the call ends. It sleeps otherwise.

Two rules of ZeroMQ shape it. A socket is used by one thread at a time: by who holds the lock. And its file descriptor
tells of news only once: so every take-over begins by draining the socket, and whoever uses it while the watchdog waits on
the descriptor rings the alarm, which makes the watchdog drain again.

It also watches the connection: an instance whose node is gone exits.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
import threading
import time
from time import monotonic
from typing import TYPE_CHECKING

import zmq

from . import _monitor

if TYPE_CHECKING:
    from ._conversation import Conversation

GRACE = 0.010  # seconds of user code before the watchdog takes over
LOOK_MS = 100  # how often it looks for log lines, and whether an interrupt worked, while it owns the socket


class TimerAlarm:
    """Rings once after a while: a timerfd, since arming one costs a microsecond and wakes nobody."""

    def __init__(self) -> None:
        # PyDLL keeps the interpreter lock, which is cheaper than letting it go for a call this short.
        libc = ctypes.PyDLL(None, use_errno=True)
        self.fd: int = libc.timerfd_create(1, os.O_NONBLOCK | os.O_CLOEXEC)  # 1: CLOCK_MONOTONIC
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._set = libc.timerfd_settime
        self._set.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]

    def arm(self, seconds: float) -> None:
        nanoseconds = max(1, int(seconds * 1e9))
        self._set(self.fd, 0, struct.pack("qqqq", 0, 0, *divmod(nanoseconds, 1_000_000_000)), None)

    def ring(self) -> None:
        self.arm(0)

    def rang(self) -> bool:
        """Whether it rang since this was last asked."""
        try:
            return bool(os.read(self.fd, 8))
        except BlockingIOError:
            return False


class PipeAlarm:
    """The same where there is no timerfd: arming wakes the watchdog, which then sleeps."""

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)

    def arm(self, seconds: float) -> None:
        self._put(b"a")

    def ring(self) -> None:
        self._put(b"r")

    def rang(self) -> bool:
        try:
            rings = os.read(self.fd, 4096)
        except BlockingIOError:
            return False
        if b"r" not in rings:
            time.sleep(GRACE)
        return True

    def _put(self, byte: bytes) -> None:
        try:
            os.write(self._write, byte)
        except BlockingIOError:  # full of rings: one more says nothing new
            pass


Alarm = TimerAlarm if sys.platform == "linux" else PipeAlarm


class Watchdog(threading.Thread):
    """The worker's second thread. `armed` and `owning` are read by the main thread."""

    def __init__(self, worker: Conversation, socket: zmq.Socket[bytes]) -> None:
        super().__init__(name="bourse-watchdog", daemon=True)
        self.worker = worker
        self.alarm = Alarm()
        self.armed = False  # the alarm is set, or the watchdog is awake
        self.owning = False
        self.urgent = False  # take over at once: the event loop waits for replies
        self.done = False
        self._connection = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._idle = select.poll()
        self._owning = select.poll()
        for fd in (self.alarm.fd, int(self._connection.getsockopt(zmq.FD))):
            self._idle.register(fd, select.POLLIN)
            self._owning.register(fd, select.POLLIN)
        self._owning.register(int(socket.getsockopt(zmq.FD)), select.POLLIN)

    def arm(self) -> None:
        """Look after `GRACE`. Main thread, with the worker's lock."""
        self.armed = True
        self.alarm.arm(GRACE)

    def hurry(self) -> None:
        """Look now. Main thread, with the worker's lock."""
        self.urgent = self.armed = True
        self.alarm.ring()

    def stop(self) -> None:
        """End the thread; afterwards no one but the caller touches the socket. Main thread, with the worker's lock."""
        self.done = True
        self.alarm.ring()
        self.join(1.0)

    def run(self) -> None:
        while True:
            self._look_at_connection()
            self._idle.poll()
            if not self.alarm.rang():
                continue
            if self.done:
                self._connection.close(0)
                return
            self._look()

    def _look(self) -> None:
        worker = self.worker
        # The main thread holds the lock wherever no user code runs, also while it waits for work.
        if not worker.lock.acquire(timeout=0.001):
            self._stand_down()
            return
        left = worker.arrived + GRACE - monotonic()
        if worker.busy and left > 0 and not self.urgent:  # a younger call than the one that set the alarm
            self.alarm.arm(left)
        elif worker.busy and not self._own():
            self._stand_down()
            return
        else:
            self._stand_down()
        worker.lock.release()

    def _stand_down(self) -> None:
        """Sleep until someone sets the alarm. With or without the lock: the order of the two looks makes up for it."""
        self.owning = self.urgent = self.armed = False
        if self.worker.busy and not self.armed:  # a call began meanwhile, and saw the alarm set
            self.armed = True
            self.alarm.arm(GRACE)

    def _own(self) -> bool:
        """Serve the socket for as long as the present call runs. Whether the lock is still held at the end."""
        worker = self.worker
        run = worker.run_number
        self.owning = True
        while worker.busy and worker.run_number == run:
            worker.drain()
            worker.lock.release()
            self._owning.poll(LOOK_MS)
            self.alarm.rang()
            self._look_at_connection()
            while not worker.lock.acquire(timeout=0.001):
                if not worker.busy or worker.run_number != run:
                    return False
            worker.press()
        return True

    def _look_at_connection(self) -> None:
        while True:
            try:
                event = _monitor.next_event(self._connection)
            except zmq.Again:
                return
            if event == zmq.EVENT_DISCONNECTED:
                self.worker.on_disconnected()
            else:
                self.worker.on_connected()
