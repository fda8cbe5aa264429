"""`python -m bourse run`: a daemon of one's own, whose modules run in this process.

The daemon is an ordinary one, started as a child with `attached` set to the modules' names: it starts no instance of these,
and is ready once they are attached. It keeps state in memory unless it is told otherwise, and ends with this process,
whatever ends that.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, Optional

from ._connection import answers, find
from ._errors import NoNode
from ._host import Host, say
from ._modules import Modules

START_SECONDS = 20.0  # how long the daemon may take to make its sockets
STOP_SECONDS = 35.0  # and to end: its own limit is `drain`
LOOK_SECONDS = 0.005

# Settings that suit a debugger; flags, and variables that are set already, win.
SETTINGS = {
    "BOURSE_STORE": "memory",
    "BOURSE_DEV": "true",  # tracebacks in error answers
    "BOURSE_QUEUE_WAIT": "1h",  # others wait while somebody looks at one call,
    "BOURSE_TIMEOUT": "1h",  # and their time goes on while they do
    # Calls on one thread hold each other up, whatever the node allows: it must not be what holds them up for good.
    "BOURSE_RUNNING": "10000",
    "BOURSE_BLOCKED": "10000",
}

_PR_SET_PDEATHSIG = 1


def run(folder: str, flags: Sequence[str]) -> int:
    """Serve a folder from this process, until Ctrl-C. The exit code."""
    if os.path.isfile(folder):
        inside = os.path.dirname(folder) or "."
        raise NoNode(f"{folder} is a file", hint=f"Name the folder that holds the functions: python -m bourse run {inside}")
    if not os.path.isdir(folder):
        raise NoNode(f"there is no folder {folder}", hint="Name the folder that holds the functions.")
    binary = find_binary()
    data = _data_folder(folder, flags)
    _refuse_second(data)
    modules = Modules(folder)
    if not modules.served:
        hint = "Mend what is reported above." if modules.broken else "Save a file such as hello.py with a function in it."
        raise NoNode(f"{folder} holds no function that could be served", hint=hint)
    daemon = _start(binary, folder, data, list(modules.served), flags)
    host: Optional[Host] = None
    try:
        _wait_for(daemon, data)
        endpoint, token = find(data, None)
        host = Host(endpoint, token, modules)
        host.alive = lambda: daemon.poll() is None
        host.daemon_stays = False
        run = "runs" if len(modules.served) == 1 else "run"
        broken = f" (but not {', '.join(modules.broken)}: see above)" if modules.broken else ""
        say(f"{', '.join(modules.served)} {run} in this process ({os.getpid()}){broken}; Ctrl-C ends it")
        host.start()  # whereupon the daemon says that it is ready, and where
        host.serve()
    except KeyboardInterrupt:
        pass
    finally:
        if host is not None:
            host.leave()
        _end(daemon)
    return 0 if daemon.returncode == 0 else 1


def find_binary() -> str:
    """The `bourse` program."""
    named = os.environ.get("BOURSE_BINARY")
    if named:
        if not os.access(named, os.X_OK):
            raise NoNode(f"BOURSE_BINARY is {named}, which is not a program")
        return named
    found = shutil.which("bourse")
    if found is None:
        raise NoNode(
            "there is no program `bourse` on the PATH",
            hint="Build it (cargo build --release), and name it: BOURSE_BINARY=target/release/bourse",
        )
    return found


def _data_folder(folder: str, flags: Sequence[str]) -> str:
    """What the daemon will take for its data folder."""
    data = os.environ.get("BOURSE_DATA") or os.path.join(folder, ".bourse")
    for flag, following in zip(flags, [*flags[1:], ""]):
        name, equals, value = flag.partition("=")
        if name == "--data":
            data = value if equals else following
    return os.path.abspath(data)


def _refuse_second(data: str) -> None:
    described = Path(data, "daemon.json")
    try:
        other = json.loads(described.read_text())
        pid, there = other["pid"], answers(other["endpoint"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if there:
        raise NoNode(
            f"a daemon (process {pid}) uses {data}",
            hint="Stop it, or serve one file of it from here: python -m bourse attach FILE. "
            "Or run a second one: -- --data DIR --http 127.0.0.1:0",
        )


def _start(binary: str, folder: str, data: str, names: list[str], flags: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = {**SETTINGS, **os.environ, "BOURSE_DATA": data, "BOURSE_ATTACHED": ",".join(names)}
    return subprocess.Popen(
        [binary, "up", folder, *flags],
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for this process, which then ends the other in order
        preexec_fn=_end_with_parent(),
    )


def _end_with_parent() -> Optional[Callable[[], None]]:
    """Makes a child end when this process does, even by kill -9."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def _wait_for(daemon: subprocess.Popen[bytes], data: str) -> None:
    """Until it says where it can be reached."""
    described = Path(data, "daemon.json")
    deadline = time.monotonic() + START_SECONDS
    while True:
        if daemon.poll() is not None:
            raise NoNode("the daemon has ended: see what it says above")
        try:
            if json.loads(described.read_text())["pid"] == daemon.pid:
                return
        except (OSError, ValueError, KeyError):
            pass
        if time.monotonic() > deadline:
            raise NoNode(f"the daemon was not there after {START_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    if daemon.poll() is None:
        daemon.terminate()
    try:
        daemon.wait(STOP_SECONDS)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        daemon.kill()
        daemon.wait()
