"""Durable calls: made by functions, and made and waited for by clients."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from test_client import Daemon

import bourse
from bourse import _messages as messages
from bourse import _values as values

STARTING = """
    import asyncio
    import bourse
    from bourse import astart, call, context, function, start, state, submit, QueueFull

    later = bourse.Target("other.later")

    @function
    def one(n): return later.start(n, deep=True)
    @function
    def by_name(n): return start("other.later", n)
    @function
    def own(n): return one.options(timeout="2s", context={"k": "v"}, version="^1").start(n)
    @function
    def both(): return [later.call(1), later.start(2), later.call(3)]
    @function
    def writing():
        state("a/x").set(1)
        call = later.start(1)
        state("a/y").set(2)
        return call
    @function
    def refused():
        try: later.start(1)
        except QueueFull as error: return [error.code, error.function]
    @function
    def let_go(): later.start(1)
    @function
    def keyed(how): return getattr(later.options(idempotency_key="k"), how)(1)
    @function
    def impatient(): return later.options(queue_wait=1).start(1)
    @function
    def delayed(how): return getattr(later.options(delay="5m"), how)(1)
    @function
    async def aone(n): return await later.astart(n)
    @function
    async def by_name_in_a_loop(n): return await astart("other.later", n)
    @function
    async def many(n): return await asyncio.gather(*[later.astart(i) for i in range(n)])
    @function
    async def beside():
        async def double(): return await submit("other.double", 4)
        doubled = asyncio.ensure_future(double())
        for _ in range(5): await asyncio.sleep(0)  # until the loop has nothing left to do but to wait
        return [later.start(1), await doubled]
    @function
    def which(): return [context.attempt, context.redelivered]
"""


def accept(node, call):
    """Says that a durable call is accepted. Its id as text."""
    id = uuid.uuid4()
    message = messages.ToWorker()
    message.reply.request, message.reply.call = call.request, id.bytes
    node.send(message)
    return str(id)


# ---------------------------------------------------------------- functions


def test_a_function_starts_a_call(node):
    node.welcomed(STARTING)
    for name in ("one", "by_name"):
        outer = node.invoke(name, 7)
        kind, call, payload = node.next()
        assert (kind, call.function, call.mode, call.parent, call.attempt) == ("call", "other.later", 1, outer, 1)
        assert not call.wait, "the slot is kept"
        assert values.decode(payload) == [[7], {"deep": True} if name == "one" else {}]
        id = accept(node, call)
        kind, result, payload = node.next()
        assert (kind, values.decode(payload)) == ("result", id)


def test_options(node):
    node.welcomed(STARTING)
    outer = node.invoke("own", 7)
    call, _ = node.expect("call")
    assert (call.function, call.mode, call.timeout_ms, call.version) == ("mod.one", 1, 2000, "^1")
    assert dict(call.context) == {"k": "v"}
    id = accept(node, call)
    assert node.outcome(outer) == id
    for how in ("start", "submit", "call"):
        failure = node.run("keyed", how)
        assert failure.type == "ValueError" and "take no idempotency key" in failure.message
    outer = node.invoke("delayed", "start")
    call, _ = node.expect("call")
    assert (call.mode, call.delay_ms) == (1, 300_000)
    id = accept(node, call)
    assert node.outcome(outer) == id
    for how in ("submit", "call"):
        assert "delay is for start" in node.run("delayed", how).message
    failure = node.run("impatient")
    assert failure.type == "ValueError" and "queue_wait is not for start" in failure.message


def test_other_calls_of_the_same_target_are_not_durable(node):
    node.welcomed(STARTING)
    outer = node.invoke("both")
    modes = []
    for _ in range(3):
        call, payload = node.expect("call")
        modes.append((call.mode, call.wait))
        if call.mode:
            id = accept(node, call)
        else:
            node.reply(call, values.decode(payload)[0][0])
    assert modes == [(0, True), (1, False), (0, True)]
    assert node.outcome(outer) == [1, id, 3]


def test_writes_keep_their_order_and_go_once(node):
    node.welcomed(STARTING)
    node.invoke("writing")
    call, _ = node.expect("call")
    assert [write.key.name for write in call.writes] == ["a/x"]
    accept(node, call)
    result, _ = node.expect("result")
    assert [write.key.name for write in result.writes] == ["a/y"]


def test_a_refusal_is_raised(node):
    node.welcomed(STARTING)
    failure = messages.Failure(code="queue_full", message="full")
    outer = node.invoke("refused")
    node.reply(node.expect("call")[0], failure=failure)
    assert node.outcome(outer) == ["queue_full", "other.later"]
    outer = node.invoke("let_go")
    node.reply(node.expect("call")[0], failure=failure)
    mine = node.outcome(outer)
    assert (mine.code, mine.message) == ("queue_full", "other.later: full")


def test_in_an_event_loop(node):
    node.welcomed(STARTING)
    for name in ("aone", "by_name_in_a_loop"):
        outer = node.invoke(name, 7)
        call, payload = node.expect("call")
        assert (call.mode, call.wait, values.decode(payload)[0]) == (1, False, [7])
        id = accept(node, call)
        assert node.outcome(outer) == id
    outer = node.invoke("many", 20)
    calls = [node.expect("call")[0] for _ in range(20)]
    ids = {call.request: accept(node, call) for call in reversed(calls)}
    assert node.outcome(outer) == [ids[call.request] for call in calls]


def test_a_start_while_other_tasks_await_asks_for_its_answer(node):
    """The node holds all replies back while the instance waits: so a wait for this one takes the place of that for the others."""
    node.welcomed(STARTING)
    outer = node.invoke("beside")
    double, _ = node.expect("call")
    wait, _ = node.expect("wait")
    assert list(wait.requests) == [double.request]
    call, _ = node.expect("call")
    wait, _ = node.expect("wait")
    assert (call.mode, list(wait.requests)) == (1, [call.request])
    id = accept(node, call)
    wait, _ = node.expect("wait")
    assert list(wait.requests) == [double.request], "and now for the others again"
    node.reply(double, 8)
    assert node.outcome(outer) == [id, 8]


def test_an_interrupt_while_it_is_accepted(node):
    node.welcomed(STARTING)
    for name in ("one", "aone"):
        outer = node.invoke(name, 1)
        call, _ = node.expect("call")
        if name == "aone":
            node.expect("wait")
        node.cancel(outer, interrupt=True)
        if name == "aone":  # it has no slot until a reply tells it so
            assert node.expect("cancel")[0].request == call.request
            node.reply(call)
        assert node.outcome(outer).code == "timeout"


def test_which_attempt(node):
    node.welcomed(STARTING)
    assert node.run("which") == [1, False]
    assert node.outcome(node.invoke("which", _attempt=3, _redelivered=True)) == [3, True]


# ---------------------------------------------------------------- clients


class Durable(Daemon):
    """Accepts durable calls. They end at once with twice their argument, but `bad.f` fails, and `lost.f` never ends."""

    def __init__(self, folder):
        super().__init__(folder)
        self.calls = {}
        self.keys = {}

    def answer(self, message, payload):
        kind = message.WhichOneof("message")
        answer = messages.ToWorker()
        if kind == "call" and message.call.mode == messages.MODE_ASYNC:
            call = message.call
            answer.reply.request = call.request
            if call.function == "full.f":
                answer.reply.failure.code = "queue_full"
                return answer, b""
            id = self.keys.setdefault(call.idempotency_key or object(), uuid.uuid4())
            self.calls[id.bytes] = (call.function, values.decode(payload)[0])
            answer.reply.call = id.bytes
            return answer, b""
        if kind == "await":
            wanted = getattr(message, "await")
            answer.reply.request = wanted.request
            function, args = self.calls.get(wanted.call, ("", []))
            if function == "lost.f" and not wanted.timeout_ms:
                return None, b""
            if function == "lost.f":
                answer.reply.failure.code, answer.reply.failure.message = "timeout", "it goes on"
            elif function == "bad.f":
                answer.reply.failure.code, answer.reply.failure.type = "function_error", "ValueError"
            elif function == "page.f":
                answer.reply.http.status, answer.reply.content_type = 404, "text/plain"
                return answer, b"gone"
            elif not function:
                answer.reply.failure.code = "not_found"
            else:
                return answer, values.encode(2 * args[0])
            return answer, b""
        return super().answer(message, payload)

    def told(self, kind):
        return [getattr(message, kind) for message in self.seen if message.WhichOneof("message") == kind]


@pytest.fixture
def daemon(node):
    daemon = Durable(node.folder)
    node.router.close(0)
    daemon.start()
    yield daemon
    daemon.control.send(b"stop")
    daemon.join()
    daemon.control.close(0)
    daemon.context.term()


def test_a_client_starts_a_call_and_waits_for_its_end(daemon):
    with bourse.Client(daemon.folder) as client:
        id = client.start("m.f", 4)
        assert str(uuid.UUID(id)) == id
        assert client.result(id) == 8 and client.result(id, timeout="5s") == 8
        assert client.result(client.start("page.f")) == bourse.Response("gone", 404, content_type="text/plain")
        assert client.call("m.f", 1) == 2, "by the same target, and it is not durable"
        client.function("m.f").options(timeout=2, context={"a": "b"}).start(1)
        assert bourse.start("m.f", 1) != bourse.start("m.f", 1)  # inside `with`, as within the grid
    calls = daemon.told("call")
    assert [call.mode for call in calls] == [1, 1, 0, 1, 1, 1]
    assert (calls[3].timeout_ms, dict(calls[3].context)) == (2000, {"a": "b"})
    assert not any(call.wait or call.parent for call in calls)
    assert [wanted.timeout_ms for wanted in daemon.told("await")] == [0, 5000, 0]
    with pytest.raises(bourse.NoNode, match="closed"):
        client.result(id)


def test_what_goes_wrong_is_raised(daemon):
    with bourse.Client(daemon.folder) as client:
        with pytest.raises(bourse.QueueFull) as failed:
            client.start("full.f")
        assert failed.value.function == "full.f"
        id = client.start("bad.f")
        with pytest.raises(bourse.FunctionError, match=f"{id}: ValueError"):
            client.result(id)
        with pytest.raises(bourse.Timeout, match="it goes on"):
            client.result(client.start("lost.f"), timeout=0)  # just looks
        assert daemon.told("await")[-1].timeout_ms == 1
        with pytest.raises(bourse.NotFound):
            client.result(str(uuid.uuid4()))
        sent = len(daemon.seen)
        for wrong in ("", "m.f", None, 7, b"1" * 16):
            with pytest.raises(ValueError, match="no call's id"):
                client.result(wrong)
        with pytest.raises(ValueError, match="not a duration"):
            client.result(id, timeout="soon")
        for wrong in ("", "k" * 256, "ü" * 128, 7):
            with pytest.raises(ValueError, match="no idempotency key"):
                client.start("m.f", 1, idempotency_key=wrong)
        with pytest.raises(ValueError, match="queue_wait is not for start"):
            client.function("m.f").options(queue_wait=1).start(1)
        assert len(daemon.seen) == sent


def test_delays(daemon):
    with bourse.Client(daemon.folder) as client:
        client.start("m.f", 1, delay="1h")
        client.function("m.f").options(delay=0.5).start(1)
        client.start("m.f", 1)
        for how in ("call", "submit"):
            with pytest.raises(ValueError, match="delay is for start"):
                getattr(client.function("m.f").options(delay=1), how)(1)
        for wrong in (0, -1, "soon"):
            with pytest.raises(ValueError, match="not a duration"):
                client.start("m.f", 1, delay=wrong)
    assert [call.delay_ms for call in daemon.told("call")] == [3_600_000, 500, 0]


def test_idempotency_keys(daemon):
    with bourse.Client(daemon.folder) as client:
        first = client.start("m.f", 1, idempotency_key="order 7")
        assert client.start("m.f", 1, idempotency_key="order 7") == first
        assert client.function("m.f").options(idempotency_key="order 7").start(1) == first
        assert client.start("m.f", 1) != first
        assert client.function("m.f").options(idempotency_key="ü" * 127).call(1) == 2
    assert [call.idempotency_key for call in daemon.told("call")] == ["order 7"] * 3 + ["", "ü" * 127]


def test_the_daemon_restarts_while_a_client_waits(daemon):
    with bourse.Client(daemon.folder) as client:
        id, pending = client.start("m.f", 4), client.start("lost.f")

        def restart(message, payload, answer=daemon.answer):
            if message.WhichOneof("message") == "await" and daemon.calls[getattr(message, "await").call][0] == "lost.f":
                daemon.control.send(b"restart")
            return answer(message, payload)

        daemon.answer = restart
        with pytest.raises(bourse.Disconnected, match="What was started goes on"):
            client.result(pending)
        assert client.result(id) == 8, "it waits for the daemon to come back"
        assert [message.WhichOneof("message") for message in daemon.seen[-2:]] == ["hello", "await"]


def test_an_async_client(daemon):
    async def body():
        async with bourse.AsyncClient(daemon.folder) as client:
            id = await client.start("m.f", 4, idempotency_key="k")
            assert await client.start("m.f", 4, idempotency_key="k") == id
            assert await client.result(id) == 8 and await client.result(id, timeout=5) == 8
            ids = await asyncio.gather(*(client.start("m.f", n) for n in range(100)))
            assert await asyncio.gather(*map(client.result, ids)) == [2 * n for n in range(100)]
            assert await bourse.astart("m.f", 1) != await bourse.Target("m.f").astart(1)
            with pytest.raises(bourse.Timeout):
                await client.result(await client.start("lost.f"), timeout="1s")
            with pytest.raises(RuntimeError, match=r"await astart\(…\)"):
                bourse.start("m.f", 1)
            with pytest.raises(ValueError, match="no call's id"):
                await client.result("m.f")

    asyncio.run(body())
    assert {call.idempotency_key for call in daemon.told("call")[:2]} == {"k"}
    assert not daemon.told("cancel")


def test_who_awaits_an_end_no_longer_says_so(daemon):
    async def body():
        async with bourse.AsyncClient(daemon.folder) as client:
            id = await client.start("lost.f")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.result(id), 0.01)
            assert await client.call("m.f", 1) == 2

    asyncio.run(body())
    assert [cancelled.request for cancelled in daemon.told("cancel")] == [daemon.told("await")[0].request]
