"""What functions send out, and what clients publish."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from test_durable import Durable, accept

import bourse
from bourse import _messages as messages
from bourse import _values as values

EMITTING = """
    import asyncio
    from bourse import FunctionError, NotFound, aemit, context, emit, function, state, submit

    @function
    def send(target, message=None, **more): return emit(target, message, **more)
    @function
    async def asend(target, message=None, **more): return await aemit(target, message, **more)
    @function
    def writing():
        state("a/x").set(1)
        ids = emit("kv.changed", {"key": "a"})
        state("a/y").set(2)
        return ids
    @function
    def refused(target, **more):
        try: emit(target, 1, **more)
        except (FunctionError, NotFound) as error: return [error.code, error.function]
    @function
    async def beside():
        async def double(): return await submit("other.double", 4)
        doubled = asyncio.ensure_future(double())
        for _ in range(5): await asyncio.sleep(0)  # until the loop has nothing left to do but to wait
        return [emit("queue:q", 1), await doubled]
    @function
    def woken():
        t = context.trigger
        return t and [t.kind, t.name, t.at and t.at.isoformat(), dict(t.facts)]
    @function
    def fence(): return context.fence
"""


def publish(node, ids):
    """Answers what is published: it makes these calls."""
    published, payload = node.expect("publish")
    message = messages.ToWorker()
    message.reply.request = published.request
    node.send(message, values.encode({"subscribers": len(ids), "calls": ids}))
    return published, values.decode(payload)


def test_queues_and_topics(node):
    node.welcomed(EMITTING)
    for function in ("send", "asend"):
        for target, kind, name in (
            ("queue:orders", "queue", "orders"),
            ("topic:kv.changed", "topic", "kv.changed"),
            ("kv.changed", "topic", "kv.changed"),
        ):
            outer = node.invoke(function, target, {"key": "a"}, delay="5m")
            published, message = publish(node, ["one", "two"])
            assert (published.WhichOneof("to"), getattr(published, kind), published.delay_ms) == (kind, name, 300_000)
            assert (published.parent, published.attempt, message) == (outer, 1, {"key": "a"})
            assert not published.context and not published.traceparent, "the node gives it the call's own"
            assert node.outcome(outer) == ["one", "two"]
    outer = node.invoke("send", "nobody.listens")
    publish(node, [])
    assert node.outcome(outer) == []


def test_writes_keep_their_order_and_go_once(node):
    node.welcomed(EMITTING)
    node.invoke("writing")
    published, _ = publish(node, ["one"])
    assert [write.key.name for write in published.writes] == ["a/x"]
    result, _ = node.expect("result")
    assert [write.key.name for write in result.writes] == ["a/y"]


@pytest.mark.parametrize(
    "target, message, function, arguments",
    [
        ("https://example.org/hook", [1], "bourse.webhook", {"url": "https://example.org/hook", "body": [1]}),
        ("http://localhost:1/", None, "bourse.webhook", {"url": "http://localhost:1/", "body": None}),
        ("connection:c1", "hi", "bourse.send", {"to": "c1", "message": "hi"}),
        ("group:chat/7", {"a": 1}, "bourse.send", {"to": "group:chat/7", "message": {"a": 1}}),
        (
            "mailto:ann@example.org, bob@example.org",
            {"subject": "s", "text": "t"},
            "bourse.mail",
            {"to": ["ann@example.org", "bob@example.org"], "subject": "s", "text": "t"},
        ),
    ],
)
def test_addresses_are_durable_calls(node, target, message, function, arguments):
    node.welcomed(EMITTING)
    for how in ("send", "asend"):
        outer = node.invoke(how, target, message, delay=2)
        call, payload = node.expect("call")
        assert (call.function, call.mode, call.delay_ms, call.parent) == (function, messages.MODE_ASYNC, 2000, outer)
        assert values.decode(payload) == [[], arguments]
        id = accept(node, call)
        assert node.outcome(outer) == [id]
        # During the execution: an ordinary call, and it is waited for.
        outer = node.invoke(how, target, message, now=True)
        call, payload = node.expect("call")
        assert (call.function, call.mode, call.wait) == (function, messages.MODE_SYNC, how == "send")
        assert values.decode(payload) == [[], arguments]
        node.reply(call, ["whatever"])
        assert node.outcome(outer) == []


def test_what_goes_wrong_is_raised(node):
    node.welcomed(EMITTING)
    for target, kind, more in (("queue:q", "publish", {}), ("https://a", "call", {}), ("https://a", "call", {"now": True})):
        outer = node.invoke("refused", target, **more)
        node.reply(node.expect(kind)[0], failure=messages.Failure(code="not_found"))
        code, function = node.outcome(outer)
        assert code == "not_found" and function in ("q", "bourse.webhook")


@pytest.mark.parametrize(
    "target, more, why",
    [
        ("queue:q", {"now": True}, "goes out with the commit"),
        ("a.topic", {"now": True}, "goes out with the commit"),
        ("https://a", {"now": True, "delay": 1}, "delay is not for now=True"),
        ("q:orders", {}, "'q:orders' is nothing that can be sent to: there are queue:, topic:"),
        ("queue:", {}, "nothing that can be sent to"),
        ("", {}, "nothing that can be sent to"),
        (5, {}, "a target is a text such as 'queue:orders', not int"),
        ("mailto:a@b", {}, "a mail is a dictionary"),
        ("queue:q", {"delay": "soon"}, "'soon' is not a duration"),
    ],
)
def test_misuse(node, target, more, why):
    node.welcomed(EMITTING)
    assert why in node.run("send", target, "x", **more).message


def test_from_outside_there_is_no_call_to_go_out_with():
    with pytest.raises(bourse.NoNode, match=r"Client\.publish"):
        bourse.emit("queue:q", 1)
    with pytest.raises(bourse.NoNode, match=r"Client\.publish"):
        asyncio.run(bourse.aemit("queue:q", 1))


def test_while_other_tasks_await_it_asks_for_its_answer(node):
    """As `start` does: the node holds all replies back while the instance waits."""
    node.welcomed(EMITTING)
    outer = node.invoke("beside")
    double, _ = node.expect("call")
    node.expect("wait")
    published, _ = node.expect("publish")
    wait, _ = node.expect("wait")
    assert list(wait.requests) == [published.request]
    message = messages.ToWorker()
    message.reply.request = published.request
    node.send(message, values.encode({"subscribers": 1, "calls": ["one"]}))
    wait, _ = node.expect("wait")
    assert list(wait.requests) == [double.request]
    node.reply(double, 8)
    assert node.outcome(outer) == [["one"], 8]


def test_what_woke_a_function(node):
    node.welcomed(EMITTING)
    assert node.run("woken") is None and node.run("fence") == 0
    more = messages.ToWorker().invoke
    more.fence = 2**40
    more.trigger.kind, more.trigger.name, more.trigger.at_ms = "cron", "@hourly", 1_800_000_000_000
    assert node.outcome(node.invoke("fence", _more=more)) == 2**40
    assert node.outcome(node.invoke("woken", _more=more)) == ["cron", "@hourly", "2027-01-15T08:00:00+00:00", {}]
    more = messages.ToWorker().invoke
    more.trigger.kind, more.trigger.facts["connection"] = "websocket", "c1"
    assert node.outcome(node.invoke("woken", _more=more)) == ["websocket", "", None, {"connection": "c1"}]


# ---------------------------------------------------------------- clients


class Publishing(Durable):
    """Knows the queue `q`, and two functions that have the topic `t`."""

    def answer(self, message, payload):
        if message.WhichOneof("message") != "publish":
            return super().answer(message, payload)
        answer = messages.ToWorker()
        answer.reply.request = message.publish.request
        if message.publish.queue not in ("", "q"):
            answer.reply.failure.code = "not_found"
            return answer, b""
        calls = [str(uuid.uuid4()) for _ in range(1 if message.publish.queue else 2)]
        return answer, values.encode({"subscribers": len(calls), "calls": calls})


@pytest.fixture
def daemon(node):
    daemon = Publishing(node.folder)
    node.router.close(0)
    daemon.start()
    yield daemon
    daemon.control.send(b"stop")
    daemon.join()
    daemon.control.close(0)
    daemon.context.term()


def test_a_client_publishes(daemon):
    with bourse.Client(daemon.folder) as client:
        assert len(client.publish("queue:q", {"n": 1}, delay="2s", idempotency_key="k")) == 1
        assert len(client.publish("topic:t")) == 2 and len(client.publish("t", 1)) == 2
        with pytest.raises(bourse.NotFound):
            client.publish("queue:nobody", 1)
        for wrong in ("https://a", "mailto:a@b", "group:x"):
            with pytest.raises(ValueError, match="neither a queue nor a topic"):
                client.publish(wrong, 1)
        with pytest.raises(ValueError, match="for a queue"):
            client.publish("t", 1, idempotency_key="k")
        with pytest.raises(bourse.TooLarge, match="the message is 2,003 bytes"):
            client.publish("t", "x" * 2000)
    first = daemon.told("publish")[0]
    assert (first.queue, first.delay_ms, first.idempotency_key, first.parent) == ("q", 2000, "k", b"")


def test_an_async_client_publishes(daemon):
    async def body():
        async with bourse.AsyncClient(daemon.folder) as client:
            sent = await asyncio.gather(*(client.publish("t", n, delay=1) for n in range(100)))
            assert [len(ids) for ids in sent] == [2] * 100
            with pytest.raises(bourse.NotFound):
                await client.publish("queue:nobody")

    asyncio.run(body())
    assert {published.delay_ms for published in daemon.told("publish")} == {0, 1000}
