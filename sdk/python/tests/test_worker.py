"""Conversations of a node with a worker that was started anew."""

from __future__ import annotations

import signal
import sys
import time

from bourse import _messages as messages
from bourse import _values as values

BASICS = """
    import os, sys, time, logging, asyncio
    import bourse
    from bourse import Response, context, instance, log

    class Oops(Exception): pass

    def echo(x, *, y=None): return [x, y] if y is not None else x
    def raw(): return b"\\x00\\xff"
    def page(): return Response("gone", 404, {"X-Why": "moved"})
    def inner(): raise Oops("no good")
    def outer(): return inner()
    def odd(): return {"a": [object()]}
    def generator_result(): return (n for n in ())
    def leave(): sys.exit(3)
    def interrupt_myself(): raise KeyboardInterrupt("mine")
    def big(n): return "x" * n
    def nap(seconds): time.sleep(seconds); return "rested"
    def tough():
        try: time.sleep(60)
        except KeyboardInterrupt: return "partial"
    def spin(seconds):
        end = time.monotonic() + seconds
        n = 0
        while time.monotonic() < end: n += 1
        return "spun"
    def who():
        return [context.function, context.module, context.attempt, dict(context.values), context.depth,
                context.remaining > 50, context.traceparent[:2], context.call_id, context.redelivered]
    def speak():
        print("to stdout"); log.info("hello", key=1); logging.getLogger("lib").warning("careful")
    async def anap(seconds): await asyncio.sleep(seconds); return "slept"
    async def aspin(seconds): return spin(seconds)
    async def afail(): raise Oops("async")
    def watch():
        end = time.monotonic() + 10
        while not context.cancelled and time.monotonic() < end: pass
        return context.cancelled
"""


def test_values_and_arguments(node):
    node.welcomed(BASICS)
    assert node.run("echo", "hi") == "hi"
    assert node.run("echo", x=1, y={"z": [1.5, None]}) == [1, {"z": [1.5, None]}]
    assert node.run("raw") == b"\x00\xff"
    call = node.invoke("page")
    result, payload = node.expect("result")
    assert (result.call, result.http.status, payload) == (call, 404, b"gone")
    assert (result.http.headers[0].name, result.http.headers[0].value) == ("X-Why", "moved")
    assert result.content_type.startswith("text/plain")
    assert node.run("anap", 0) == "slept"


def test_hello_names_the_worker(node):
    process = node.start(BASICS)
    hello = node.welcome()
    assert (hello.role, hello.secret, hello.pid) == (messages.ROLE_WORKER, b"the secret", process.pid)
    assert not hello.HasField("failed")


def test_context(node):
    node.welcomed(BASICS)
    call = node.invoke("who")
    *first, call_id, redelivered = node.outcome(call)
    assert first == ["who", "mod", 1, {"tenant": "acme"}, 0, True, "00"]
    assert call_id.replace("-", "") == call.hex() and redelivered is False


def test_failures_have_the_users_frames_only(node):
    node.welcomed(BASICS)
    failure = node.run("outer")
    assert (failure.code, failure.type, failure.message) == ("function_error", "mod.Oops", "no good")
    assert "in inner" in failure.traceback and "in outer" in failure.traceback
    assert "bourse/_worker.py" not in failure.traceback
    assert node.run("afail").message == "async"
    failure = node.run("odd")
    assert failure.type == "TypeError" and "result['a'][0] is of type object" in failure.message
    assert "generator" in node.run("generator_result").message


def test_an_exception_without_a_text_says_something(node):
    node.welcomed(
        """
        def memory(): raise MemoryError
        def interrupted(): raise KeyboardInterrupt
        def wrong(): assert False
        """
    )
    said = {name: node.run(name) for name in ("memory", "interrupted", "wrong")}
    assert said["memory"].message == "out of memory"
    assert said["interrupted"].message == "interrupted, by Ctrl-C or a signal"
    assert said["wrong"].message == "AssertionError was raised without a text"


def test_a_missing_package_is_told_where_to_name_it(node):
    node.write("helper.py", "import no_such_package.part\n")
    node.write("names.py", "")
    node.welcomed(
        """
        def packages(): import helper
        def parts(): import names.part
        def standard(): import no_such_package_either, os
        def own(): raise ModuleNotFoundError("no name")
        def pythons(): raise ModuleNotFoundError("No module named 'tkinter'", name="tkinter")
        """
    )
    hint = "add it to requirements.txt in the served folder"
    assert hint in node.run("packages").hint and "no_such_package is a package" in node.run("packages").hint
    assert hint in node.run("standard").hint
    assert [node.run(name).hint for name in ("parts", "own")] == ["", ""]
    assert sys.version_info < (3, 10) or node.run("pythons").hint == ""


def test_a_module_that_lacks_a_package(node):
    node.start("import no_such_package\n")
    hello, _ = node.expect("hello")
    assert hello.failed.message == "ModuleNotFoundError: No module named 'no_such_package'"
    assert "requirements.txt in the served folder" in hello.failed.hint


def test_no_exception_ends_the_instance(node):
    node.welcomed(BASICS)
    assert node.run("leave").message == "the function called sys.exit(3)"
    assert node.run("interrupt_myself").code == "function_error"
    assert node.run("echo", 1) == 1


def test_arguments_that_do_not_fit(node):
    node.welcomed(BASICS)
    failure = node.run("echo", 1, 2, 3)
    assert failure.code == "bad_arguments" and "too many positional" in failure.message
    failure = node.outcome(node.invoke("echo", _raw=b"\xff\xff"))
    assert failure.code == "bad_arguments" and "CBOR" in failure.message
    assert node.outcome(node.invoke("echo", _raw=b"\x01")).code == "bad_arguments"
    failure = node.run("nothing")
    assert failure.code == "not_found" and "echo" in failure.hint


def test_result_too_large(node):
    node.welcomed(BASICS, payload_max=1000)
    failure = node.run("big", 2000)
    assert failure.code == "too_large" and "2,003" in failure.message and "1,000" in failure.message
    assert node.run("big", 10) == "x" * 10


def test_calls_ahead_run_in_order(node):
    node.welcomed(BASICS)
    calls = [node.invoke("echo", n) for n in range(8)]
    assert [node.outcome(call) for call in calls] == list(range(8))


def test_ping_and_recall_while_a_function_runs(node):
    node.welcomed(BASICS)
    assert node.ping() < 1
    for function in ("nap", "spin", "anap", "aspin"):
        running = node.invoke(function, 2)
        second, third = node.invoke("echo", 2), node.invoke("echo", 3)
        start = time.monotonic()
        assert [node.ping() < 0.5 for _ in range(5)] == [True] * 5
        assert node.recall(running, third, b"unknown") == [third]
        assert time.monotonic() - start < 1.5  # it still runs
        assert node.outcome(running) in ("rested", "spun", "slept")
        assert node.outcome(second) == 2


def test_interrupt(node):
    node.welcomed(BASICS)
    for function in ("nap", "spin", "anap", "aspin"):
        call = node.invoke(function, 60)
        assert node.ping() < 1  # it has begun
        node.cancel(call, interrupt=True, reason="timeout of 1 s")
        failure = node.outcome(call)
        assert failure.code == "timeout" and "timeout of 1 s" in failure.message
        assert node.run("echo", function) == function
    call = node.invoke("tough")
    node.ping()
    node.cancel(call, interrupt=True)
    assert node.outcome(call) == "partial"


def test_interrupts_never_hit_another_call(node):
    node.welcomed(BASICS)
    for n in range(60):
        call = node.invoke("nap", 0.012)  # about when the watchdog takes over
        node.cancel(call, interrupt=True)
        next_call = node.invoke("echo", n)
        outcome = node.outcome(call)
        assert outcome == "rested" or outcome.code == "timeout"
        assert node.outcome(next_call) == n


def test_cancel(node):
    node.welcomed(BASICS)
    call, waiting = node.invoke("watch"), node.invoke("echo", 1)
    node.ping()
    node.cancel(waiting, reason="the caller left")
    failure = node.outcome(waiting)
    assert (failure.code, failure.message) == ("cancelled", "the caller left")
    node.cancel(call)
    assert node.outcome(call) is True


def test_logs(node):
    node.welcomed(BASICS)
    call = node.invoke("speak")
    lines = [node.expect("log")[0] for _ in range(2)]
    assert node.outcome(call) is None
    assert [(line.message, line.level, line.call) for line in lines] == [("hello", 2, call), ("careful", 3, call)]
    assert lines[0].fields["key"] == "1" and lines[1].fields["logger"] == "lib"


def test_results_are_sent_again_until_acknowledged(node):
    node.welcomed(BASICS)
    assert node.run("echo", "first") == "first"
    node.invoke("echo", "second")  # acknowledges the first
    assert node.outcome() == "second"
    message = messages.ToWorker()
    message.welcome.version = 1
    node.send(message)
    again, payload = node.expect("result")
    assert (again.seq, values.decode(payload)) == (2, "second")


STOPPING = """
    import os, bourse
    from bourse import instance
    def on_start(): instance.name = "made once"
    @bourse.on_stop
    def bye(): open(os.environ["PROOF"], "w").write(instance.name)
    def name(): return instance.name
"""


def test_stop(node, monkeypatch):
    proof = node.folder / "proof"
    monkeypatch.setenv("PROOF", str(proof))
    process = node.welcomed(STOPPING)
    assert node.run("name") == "made once"
    last = node.invoke("name")
    node.stop()
    assert node.outcome(last) == "made once"
    node.expect("bye")
    assert process.wait(10) == 0
    assert proof.read_text() == "made once"


def test_on_start_fails(node):
    process = node.start("def on_start(): raise ValueError('no database')\ndef f(): pass\n")
    hello, _ = node.expect("hello")
    assert hello.failed.code == "module_failed" and "no database" in hello.failed.message
    assert "in on_start" in hello.failed.traceback and "_worker.py" not in hello.failed.traceback
    assert process.wait(10) == 1


def test_module_does_not_load(node):
    process = node.start("def f(:\n")
    hello, _ = node.expect("hello")
    assert hello.failed.type == "SyntaxError" and "mod.py" in hello.failed.traceback
    assert process.wait(10) == 1


def test_refused(node):
    process = node.start(BASICS)
    node.expect("hello")
    message = messages.ToWorker()
    message.refused.failure.code = "unauthorized"
    message.refused.failure.message = "wrong secret"
    node.send(message)
    assert process.wait(10) == 2
    assert "wrong secret" in node.log.read_text()


def test_the_node_disappears(node):
    process = node.welcomed(BASICS)
    node.invoke("nap", 0.1)
    node.outcome()
    node.router.close(0)
    assert process.wait(10) == 3


def test_a_foreign_signal_changes_nothing(node):
    process = node.welcomed(BASICS)
    call = node.invoke("nap", 0.3)
    node.ping()
    process.send_signal(signal.SIGINT)
    assert node.outcome(call) == "rested"
