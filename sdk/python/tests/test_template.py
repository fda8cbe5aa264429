"""The fork server, seen by its keeper."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time

import pytest
from fake_node import PATIENCE

SIMPLE = """
    import os, random, helper
    print("loading")
    def pids(): return [os.getpid(), os.getppid(), os.getsid(0), os.getpgid(0), random.random()]
    def speak(): print("spoken")
    def helped(): return helper.x
"""


def test_forks(node):
    node.write("helper.py", "x = 5\n")
    template = node.template(SIMPLE)
    ready = template.receive()
    assert ready.module.name == "mod" and ready.not_forkable == ""
    assert list(ready.files) == ["helper.py", "mod.py"]
    seen = []
    for number in (1, 2):
        forked = template.fork(number, f"secret {number}".encode())
        assert forked.process == number and forked.error == ""
        hello = node.welcome()
        assert (hello.secret, hello.pid) == (f"secret {number}".encode(), forked.pid)
        pid, parent, session, group, drawn = node.run("pids")
        assert pid == session == group == forked.pid
        assert parent != template.process.pid  # the keeper's, where it is a subreaper
        assert node.run("helped") == 5
        seen.append(drawn)
        node.run("speak")
        node.stop()
        node.expect("bye")
    assert seen[0] != seen[1]
    assert node.log.read_text() == "spoken\nspoken\n"
    template.control.close()
    assert template.process.wait(10) == 0


def test_load_errors(node):
    failed = node.template("x = 1\ndef f(:\n").receive()
    assert (failed.code, failed.type) == ("module_failed", "SyntaxError")
    assert 'mod.py", line 2' in failed.traceback and "_discover" not in failed.traceback
    failed = node.template("import nothing_like_this\n").receive()
    assert "No module named 'nothing_like_this'" in failed.message and "line 1" in failed.traceback
    failed = node.template("raise SystemExit(1)\n").receive()
    assert failed.type == "SystemExit"
    template = node.template("from bourse import function\n@function(pure=True)\ndef f(key): pass\n")
    failed = template.receive()
    assert "'pure' is not supported" in failed.message and "exclusive, horizon, http, idempotent, mail, name" in failed.message
    assert template.process.wait(10) == 1


def test_threads_make_it_unforkable(node):
    template = node.template(
        """
        import threading
        threading.Thread(target=threading.Event().wait, daemon=True, name="poller").start()
        def f(): pass
        """
    )
    ready = template.receive()
    assert "poller" in ready.not_forkable
    assert "not forkable" in template.fork().error


def test_native_threads_make_it_unforkable(node):
    template = node.template("import zmq\nsocket = zmq.Context().socket(zmq.PUSH)\ndef f(): pass\n")
    if os.path.isdir("/proc/self/task"):
        assert "not made by Python" in template.receive().not_forkable


@pytest.mark.skipif(sys.platform != "linux", reason="child subreapers are Linux's")
def test_the_keeper_sees_the_exit_itself(node):
    libc = ctypes.CDLL(None)
    set_child_subreaper = 36
    libc.prctl(set_child_subreaper, 1, 0, 0, 0)
    try:
        node.write("helper.py", "x = 5\n")
        template = node.template(SIMPLE)
        template.receive()
        for crash in (False, True):
            forked = template.fork()
            node.welcome()
            assert node.run("pids")[1] == os.getpid()
            if crash:
                os.killpg(forked.pid, 9)
            else:
                node.stop()
            _, status = os.waitpid(forked.pid, 0)
            assert os.WIFSIGNALED(status) if crash else os.WEXITSTATUS(status) == 0
    finally:
        libc.prctl(set_child_subreaper, 0, 0, 0, 0)


def eventually(look):
    """What it finds, once it finds something."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.002)


def has_ended(pid):
    """All its threads, and with them its sockets. Who should reap it then may be an init that does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            state = stat.read().rpartition(b")")[2].split()[0]
        return state == b"Z" and len(os.listdir(f"/proc/{pid}/task")) == 1
    except FileNotFoundError:
        return True


def spares(template):
    """Session leaders with the template's own command line, which no one else's has."""
    with open(f"/proc/{template.process.pid}/cmdline", "rb") as line:
        ours = line.read()
    found = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as line:
                # The process in between has it too, but leads no session.
                if line.read() == ours and os.getsid(int(entry)) == int(entry):
                    found.add(int(entry))
        except OSError:  # it has ended
            pass
    return found - {template.process.pid}


@pytest.mark.skipif(sys.platform != "linux", reason="it takes /proc to see them")
def test_a_spare_is_kept_ready(node):
    node.write("helper.py", "x = 5\n")
    template = node.template(SIMPLE)
    template.receive()
    (first,) = eventually(lambda: spares(template))
    assert template.fork(1, b"one").pid == first
    assert node.welcome().secret == b"one"
    # One that is killed is not used.
    (second,) = eventually(lambda: spares(template) - {first})
    os.kill(second, 9)
    eventually(lambda: has_ended(second))
    third = template.fork(2, b"two").pid
    assert third not in (first, second)
    assert node.welcome().secret == b"two"
    # Orders that come faster than spares are made.
    pids = {template.fork(number, b"more").pid for number in range(3, 6)}
    assert len(pids) == 3
    # It leaves with its template.
    (last,) = eventually(lambda: spares(template) - pids - {first, third})
    template.process.kill()
    template.process.wait()
    eventually(lambda: has_ended(last))


def test_a_spare_that_cannot_be_made_costs_nothing(monkeypatch):
    from bourse import _discover, _template

    def refuse():
        raise BlockingIOError("Resource temporarily unavailable")

    keeper, control = socket.socketpair()
    with keeper, control:
        template = _template.Template(control, "ipc://nowhere")
        loaded = _discover.Loaded("mod", {}, None, [], [], [])
        monkeypatch.setattr(os, "fork", refuse)
        template._keep_spare(loaded)
        assert template.spare is None
        # An order is told why.
        order = _template.messages.ToTemplate()
        order.fork.process = 3
        answer = template._fork(loaded, order).forked
        assert (answer.process, answer.pid) == (3, 0) and "temporarily unavailable" in answer.error
