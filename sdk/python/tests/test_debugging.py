"""`python -m bourse run` and `attach`, with a real daemon."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from daemon import PATIENCE, Folder
from fake_node import SOURCE

MATHS = """
import asyncio
import os
import threading
from bourse import call, function, gather, instance, on_start, on_stop, state

@on_start
def start():
    instance.factor = 3

@on_stop
def stop():
    print("maths stops", flush=True)

@function(http="GET /pid")
def pid():
    return [os.getpid(), threading.current_thread() is threading.main_thread()]

@function
def fib(n: int):
    return n if n < 2 else sum(gather(fib.submit(n - 1), fib.submit(n - 2)))

@function
async def afib(n: int):
    return n if n < 2 else sum(await asyncio.gather(afib.submit(n - 1), afib.submit(n - 2)))

@function
def mixed(n: int):
    return n if n < 1 else 1 + call("maths.amixed", n - 1)

@function
async def amixed(n: int):
    return n if n < 1 else 1 + await mixed.acall(n - 1)

@function
def deep(n: int):
    return 0 if n == 0 else 1 + deep.call(n - 1)

@function
def across(n: int):
    return [call("shop.doubled", n), instance.factor, hasattr(instance, "shop")]

@function
def count(key: str):
    total = state(key).get(0) + 1
    state(key).set(total)
    return total

@function
def counts(key: str):
    return [count.call(key), count.call(key), state(key).get(0)]

@function
def boom(n: int):
    return deep_down(n)

def deep_down(n):
    return 1 // n

@function(timeout="50ms")
def stops():
    value = 41
    breakpoint()
    return value

@function
def looks():
    breakpoint()
    return fib.call(1)

@function
def hangs():
    print("hangs now", flush=True)
    threading.Event().wait()

@function
async def waits():
    return await hangs.submit()

@function
def leaves():
    raise SystemExit(3)
"""

SHOP = """
import os
import maths
from bourse import instance

def doubled(n: int):
    instance.shop = True
    return 2 * maths.fib.call(n)

def pid():
    return os.getpid()
"""


@pytest.fixture
def folder():
    if "BOURSE_BINARY" not in os.environ:
        pytest.skip("BOURSE_BINARY is not set: no daemon to test with")
    place = Path(tempfile.mkdtemp(prefix="b-"))  # short: an ipc path has at most 107 bytes
    folder = Folder(place)
    yield folder
    folder.close()
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def maths(folder):
    folder.write("maths.py", MATHS)
    folder.write("shop.py", SHOP)
    return folder


def stopped(runner, where):
    """Until it is at the line after a breakpoint."""
    runner.expect(where)
    if sys.version_info >= (3, 13):  # stops at the breakpoint's own
        runner.type("n")


# ---------------------------------------------------------------- run


def test_everything_runs_in_one_process(maths):
    runner = maths.run()
    assert maths.request("GET", "/pid") == (200, [runner.pid, True])
    assert maths.call("shop.pid") == runner.pid
    # Functions that call themselves and each other, one after the other and at once.
    assert maths.call("maths.fib", n=8) == 21
    assert maths.call("maths.deep", n=100) == 100
    assert maths.call("maths.across", n=5) == [10, 3, False]


def test_event_loops_nest(maths):
    maths.run()
    assert maths.call("maths.afib", n=6) == 8
    assert maths.call("maths.mixed", n=5) == 5


def test_state(maths):
    maths.run()
    assert [maths.call("maths.count", key="a") for _ in range(3)] == [1, 2, 3]
    assert maths.call("maths.counts", key="b")[:2] == [1, 2]
    assert not (maths.served / ".bourse" / "store.sqlite").exists(), "state is in memory"


def test_many_at_once(maths):
    maths.run()
    answers = [maths.later("maths.fib", n=5) for _ in range(20)]
    assert [answer.get(timeout=PATIENCE) for answer in answers] == [5] * 20


def test_a_traceback_is_the_functions_own(maths):
    maths.run()
    status, problem = maths.request("POST", "/v1/call/maths.boom", {"n": 0})
    assert (status, problem["error"]["type"]) == (500, "ZeroDivisionError")
    traceback = problem["error"]["traceback"]
    assert "in deep_down" in traceback and "bourse/_" not in traceback
    assert maths.request("POST", "/v1/call/maths.leaves", {})[0] == 500
    assert maths.call("maths.fib", n=3) == 2, "it goes on"


def test_a_breakpoint_has_all_the_time_it_wants(maths):
    runner = maths.run()
    answer = maths.later("maths.stops")
    stopped(runner, r"stops\(\)")
    assert answer.empty()
    other = maths.later("maths.pid")  # waits, and is not refused
    runner.type("import time; time.sleep(0.2)")  # past the function's own timeout: this *is* the time that passes
    runner.type("value = 42")
    runner.type("n")
    runner.type("n")  # off the end of the function: not into ours
    assert answer.get(timeout=PATIENCE) == 42
    assert other.get(timeout=PATIENCE)[0] == runner.pid


def test_a_step_into_a_call_goes_to_its_function(maths):
    runner = maths.run()
    answer = maths.later("maths.looks")
    stopped(runner, r"looks\(\)")
    runner.type("s")
    runner.expect(r"maths.py\(\d+\)fib\(\)")
    for _ in range(3):
        runner.type("s")  # its line, its return, and back
    runner.expect(r"looks\(\)->1")
    runner.type("s")
    assert answer.get(timeout=PATIENCE) == 1


def test_a_call_can_be_ended_in_the_debugger(maths):
    runner = maths.run()
    answer = maths.later("maths.looks")
    stopped(runner, r"looks\(\)")
    runner.type("q")
    problem = answer.get(timeout=PATIENCE)
    assert problem["error"]["message"] == "the function was ended in the debugger"
    assert maths.call("maths.fib", n=3) == 2, "it goes on"


def test_saved_files_are_loaded_again(maths):
    runner = maths.run()
    maths.write("shop.py", "def pid():\n    return 'new'\n")
    runner.expect("maths was loaded again")
    runner.expect("shop was loaded again")
    assert maths.call("shop.pid") == "new"
    # Another description, a new module, and one that is gone.
    maths.write("shop.py", "def pid(more: int = 1):\n    return more\n\ndef fresh():\n    return 'fresh'\n")
    runner.expect("revision attached-.* serves, 2 functions")
    assert (maths.call("shop.pid", more=7), maths.call("shop.fresh")) == (7, "fresh")
    maths.write("late.py", "def here():\n    return True\n")
    runner.expect("late: revision attached-")
    assert maths.call("late.here") is True
    (maths.served / "late.py").unlink()
    runner.expect("late is served no more")
    assert maths.call("late.here")["code"] == "not_found"
    assert maths.call("maths.across", n=1)["code"] == "function_error"  # it calls what is no longer there
    # One that does not load goes on as it was.
    maths.write("shop.py", "def pid(:\n")
    runner.expect("shop does not load; it goes on as it was: SyntaxError")
    assert maths.call("shop.fresh") == "fresh"


def test_what_the_daemon_refuses_goes_on_as_it_was(maths):
    runner = maths.run()
    maths.write("shop.py", "__version__ = '1.0.0-01'\n\ndef pid():\n    return 'new'\n")
    said = runner.expect(r"shop can't be served.*")[0]
    assert "goes on as it was" in said and "1.0.0-01" in said
    assert maths.call("shop.pid") == runner.pid
    assert maths.call("maths.across", n=5)[0] == 10
    maths.write("shop.py", "__version__ = '1.0.1'\n\ndef pid():\n    return 'newer'\n")
    runner.expect("shop was loaded again")
    assert maths.call("shop.pid") == "newer"


def test_ctrl_c_ends_calls_that_run_on_top_of_each_other(maths):
    runner = maths.run()
    answer = maths.later("maths.waits")
    runner.expect("hangs now")
    runner.signal(signal.SIGINT)
    assert runner.expect_end() == 0
    assert answer.get(timeout=PATIENCE)["status"] >= 500


def test_ctrl_c_ends_both_in_order(maths):
    runner = maths.run()
    assert maths.call("maths.fib", n=3) == 2
    runner.signal(signal.SIGINT)
    assert runner.expect_end() == 0
    assert any("maths stops" in line for line in runner.said)
    assert not (maths.served / ".bourse" / "daemon.json").exists(), "the daemon has ended in order, too"


def test_the_daemon_ends_with_a_runner_that_is_killed(maths):
    runner = maths.run()
    runner.signal(signal.SIGKILL)
    runner.expect_end()  # the end of the output that both share
    assert not (maths.served / ".bourse" / "daemon.json").exists()


def test_what_it_says_when_it_cannot(folder):
    folder.write("broken.py", "import nothing_of_the_kind\n")
    old = {"pid": 1, "endpoint": f"ipc://{folder.place}/none", "token_file": "token", "folder": str(folder.served)}
    gone = folder.write("gone/.bourse/daemon.json", json.dumps(old)).parent
    (gone / "token").write_text("t")
    (gone.parent / "one.py").write_text("def one():\n    return 1\n")
    cases = [
        (["run", "nowhere"], "there is no folder nowhere"),
        (["run", "f"], "ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        (["attach", "f/none.py"], "there is no file f/none.py"),
        (["run", "f/broken.py"], "python -m bourse run f\n"),
        (["run", "f", "--http", "x"], "run f -- --http x"),
        (["attach", "f"], "f is a folder, and no Python package"),
        (["attach", "f/broken.py"], "there is no .bourse/daemon.json"),
        (["attach", "f/gone/one.py"], "daemon.json tells of is gone"),
        (["attach", "f/broken.py", "--data", "f"], "f/daemon.json does not exist"),
        (["attach", "f/broken.py", "--url", "tcp://127.0.0.1:1"], "--token-file DIR/token"),
        (["attach", "f/broken.py", "--url", "tcp://127.0.0.1:1", "--token-file", "no"], "can't be read from no"),
    ]
    programs = [folder.start(sys.executable, "-m", "bourse", *arguments) for arguments, _ in cases]
    for program, (_, said) in zip(programs, cases):
        assert program.expect_end() == 2
        assert said in "".join(program.said), program.said


def test_a_second_daemon_is_refused(maths):
    maths.run()
    second = maths.start(sys.executable, "-m", "bourse", "run", "f")
    second.expect("uses .*f/.bourse")
    assert second.expect_end() == 2


def test_help():
    for arguments in (["--help"], ["run", "--help"], ["attach", "--help"]):
        command = [sys.executable, "-m", "bourse", *arguments]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": SOURCE}, capture_output=True, text=True)
        assert done.returncode == 0 and "python -m bourse" in done.stdout


# ---------------------------------------------------------------- attach


def test_attach_serves_from_here_until_it_leaves(maths):
    daemon = maths.up()
    own = maths.call("shop.pid")
    attached = maths.attach("shop.py")
    assert maths.call("shop.pid") == attached.pid != own
    assert maths.call("maths.across", n=5)[0] == 10  # from the daemon's maths to here, and back
    attached.signal(signal.SIGINT)
    assert attached.expect_end() == 0
    assert maths.call("shop.pid") not in (attached.pid, daemon.pid)


def test_attach_that_ends_answers_what_runs_and_gives_the_rest_back(maths):
    maths.up()
    attached = maths.attach("maths.py")
    running = maths.later("maths.hangs")
    attached.expect("hangs now")
    waiting = maths.later("maths.fib", n=3)
    attached.signal(signal.SIGINT)
    assert attached.expect_end() == 0
    assert running.get(timeout=PATIENCE)["error"]["type"] == "KeyboardInterrupt"
    assert waiting.get(timeout=PATIENCE) == 2


def test_recursion_in_an_attached_module(maths):
    maths.up()
    attached = maths.attach("maths.py")
    assert maths.call("maths.fib", n=8) == 21
    assert maths.request("GET", "/pid")[1][0] == attached.pid


def test_attach_comes_back_after_a_restart(maths):
    daemon = maths.up()
    attached = maths.attach("shop.py")
    daemon.signal(signal.SIGTERM)
    daemon.expect_end()
    attached.expect("the daemon is gone")
    maths.up()
    attached.expect("the daemon is back")
    assert maths.call("shop.pid") == attached.pid


def test_the_newest_serves(maths):
    maths.up()
    first = maths.attach("shop.py")
    second = maths.attach("shop.py")
    first.expect("another process serves shop now")
    assert first.expect_end() == 0
    assert maths.call("shop.pid") == second.pid
