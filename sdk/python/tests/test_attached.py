"""A worker that its node did not start: a developer's process. It says what it runs, and comes back after a restart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from fake_node import SOURCE
from test_worker import BASICS

from bourse import _messages as messages

ATTACH = """
import sys
from bourse import _discover, _messages
from bourse._worker import Worker
path, root, endpoint = sys.argv[1:]
sys.exit(Worker(_discover.load(path, root), endpoint, b"the token", _messages.ROLE_ATTACHED).run())
"""


def attach(node):
    path = node.write("mod.py", BASICS)
    process = subprocess.Popen(
        [sys.executable, "-c", ATTACH, str(path), str(path.parent), node.endpoint],
        env={**os.environ, "PYTHONPATH": SOURCE},
        stderr=subprocess.DEVNULL,
    )
    node.processes.append(process)
    return process


def test_it_comes_back(node):
    attach(node)
    hello = node.welcome()
    assert (hello.role, hello.secret, hello.module.name) == (messages.ROLE_ATTACHED, b"the token", "mod")
    assert "echo" in [function.name for function in hello.module.functions]
    assert node.run("echo", 1) == 1
    running = node.invoke("nap", 0.2)
    node.ping()
    node.router.close(0)
    node.bind()
    node.welcome(incarnation=7)
    assert node.outcome(running) == "rested"
    node.router.close(0)  # while it is idle
    node.bind()
    node.welcome(incarnation=8)
    again, _ = node.expect("result")  # it was not acknowledged before the restart
    assert again.call == running
    assert node.run("echo", 2) == 2


def test_ctrl_c_ends_it(node):
    process = attach(node)
    node.welcome()
    assert node.run("echo", 1) == 1
    process.send_signal(signal.SIGINT)
    assert process.wait(10) != 0
