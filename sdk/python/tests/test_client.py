"""Clients against a node that is a thread here: one ROUTER that answers what it is asked."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
import zmq

import bourse
from bourse import _messages as messages
from bourse import _values as values
from bourse._calls import Target


class Daemon(threading.Thread):
    """Doubles numbers; fails where asked to; never answers `lost.f`."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder = folder
        self.endpoint = f"ipc://{folder}/node.sock"
        self.context = zmq.Context()
        self.control = self.context.socket(zmq.PAIR)
        self.control.bind("inproc://control")
        self.seen = []
        (folder / ".bourse").mkdir(exist_ok=True)
        (folder / ".bourse" / "token").write_text("a token\n")
        described = {"endpoint": self.endpoint, "token_file": str(folder / ".bourse" / "token"), "http": "", "pid": 1}
        (folder / ".bourse" / "daemon.json").write_text(json.dumps(described))

    def run(self):
        stop = self.context.socket(zmq.PAIR)
        stop.connect("inproc://control")
        router = self.bind()
        poller = zmq.Poller()
        poller.register(stop, zmq.POLLIN)
        while True:
            poller.register(router, zmq.POLLIN)
            ready = dict(poller.poll())
            if stop in ready:
                if stop.recv() == b"stop":
                    break
                poller.unregister(router)
                router.close(0)
                router = self.bind()
                continue
            peer, header, payload = router.recv_multipart()
            message = messages.ToNode.FromString(header)
            self.seen.append(message)
            answer, body = self.answer(message, payload)
            if answer is not None:
                router.send_multipart([peer, answer.SerializeToString(), body])
        router.close(0)
        stop.close(0)

    def bind(self):
        router = self.context.socket(zmq.ROUTER)
        router.bind(self.endpoint)
        return router

    def answer(self, message, payload):
        answer = messages.ToWorker()
        kind = message.WhichOneof("message")
        if kind == "hello":
            if message.hello.secret == b"a token":
                answer.welcome.version = 1
                answer.welcome.payload_max = 1000
            else:
                answer.refused.failure.code = "unauthorized"
            return answer, b""
        if kind == "cancel":
            answer.reply.request = message.cancel.request
            answer.reply.failure.code = "cancelled"
            return answer, b""
        if kind != "call" or message.call.function == "lost.f":
            return None, b""
        answer.reply.request = message.call.request
        args, _ = values.decode(payload)
        if message.call.function == "bad.f":
            answer.reply.failure.code = "not_found"
            answer.reply.failure.hint = "Deploy it."
            return answer, b""
        return answer, values.encode(args[0] * 2)


@pytest.fixture
def daemon(node):
    daemon = Daemon(node.folder)
    node.router.close(0)
    daemon.start()
    yield daemon
    daemon.control.send(b"stop")
    daemon.join()
    daemon.control.close(0)
    daemon.context.term()


def test_calls(daemon):
    with bourse.Client(daemon.folder) as client:
        assert client.call("m.f", 4) == 8
        assert client.gather(*[client.submit("m.f", n) for n in range(100)]) == [2 * n for n in range(100)]
        assert list(client.map("m.f", range(200))) == [2 * n for n in range(200)]
        assert sorted(client.map("m.f", range(200), ordered=False)) == [2 * n for n in range(200)]
        with pytest.raises(bourse.NotFound, match="Deploy it"):
            client.call("bad.f", 1)
        done = list(bourse.as_completed([client.submit("m.f", n) for n in range(5)]))
        assert sorted(future.result() for future in done) == [0, 2, 4, 6, 8]
        assert bourse.call("m.f", 1) == 2  # inside `with`, as within the grid
        with pytest.raises(bourse.TooLarge, match="1,000"):
            client.call("m.f", "x" * 2000)
        with pytest.raises(bourse.Timeout):
            client.submit("lost.f", 1).result(timeout=0.01)
        client.function("m.f").options(timeout="5s", context={"a": "b"}).call(1)
    call = [message.call for message in daemon.seen if message.HasField("call")][-1]
    assert call.timeout_ms == 5000 and dict(call.context) == {"a": "b"}
    with pytest.raises(bourse.NoNode, match="closed"):
        client.call("m.f", 1)


def test_misuse(daemon, tmp_path, monkeypatch):
    with bourse.Client(daemon.folder) as client:
        caught = []

        def body():
            try:
                client.call("m.f", 1)
            except RuntimeError as error:
                caught.append(str(error))

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        assert "belongs to the thread" in caught[0]
    with pytest.raises(bourse.Unauthorized):
        bourse.Client(daemon.endpoint, token="wrong")
    (tmp_path / "shop").mkdir()
    for folder in (str(tmp_path / "shop"), tmp_path / "shop" / ".bourse"):
        with pytest.raises(bourse.NoNode, match=r"/shop/\.bourse/daemon\.json does not exist"):
            bourse.Client(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BOURSE_DATA", raising=False)
    with pytest.raises(bourse.NoNode, match=r"no \.bourse/daemon\.json"):
        bourse.Client()
    monkeypatch.setenv("BOURSE_DATA", str(daemon.folder / ".bourse"))
    with bourse.Client() as client:
        assert client.call("m.f", 1) == 2


def test_the_daemon_restarts(daemon):
    with bourse.Client(daemon.folder) as client:
        lost = client.submit("lost.f", 1)
        daemon.control.send(b"restart")
        with pytest.raises(bourse.Disconnected):
            lost.result()
        assert client.call("m.f", 1) == 2, "it waits for the daemon to come back"
    assert sum(message.HasField("hello") for message in daemon.seen) == 2


def test_async_client(daemon):
    async def body():
        async with bourse.AsyncClient(daemon.folder) as client:
            assert await client.call("m.f", 4) == 8
            futures = [client.submit("m.f", n) for n in range(500)]
            assert await client.gather(*futures) == [2 * n for n in range(500)]
            assert [result async for result in client.map("m.f", range(100), in_flight=8)] == [2 * n for n in range(100)]
            unordered = [result async for result in client.map("m.f", range(100), in_flight=8, ordered=False)]
            assert sorted(unordered) == [2 * n for n in range(100)]
            with pytest.raises(ValueError, match="at least 1"):
                [result async for result in client.map("m.f", range(3), in_flight=0)]
            with pytest.raises(bourse.NotFound):
                await client.call("bad.f", 1)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.call("lost.f", 1), 0.01)
            with pytest.raises(RuntimeError, match="block the event loop"):
                client.function("m.f").call(1)

    asyncio.run(body())


def test_where_a_call_may_run_is_said_in_words():
    target = Target("m.f").options(horizon="machine", scale_after="5ms", overflow="remote")
    call = target._message.call
    assert (call.horizon, call.scale_after_ms, call.overflow) == (2, 5, 2)
    call = Target("m.f").options(overflow="queue")._message.call
    assert (call.horizon, call.scale_after_ms, call.overflow) == (0, 0, 0)
    with pytest.raises(ValueError, match="is no horizon: it is one of process, machine, network, anywhere"):
        Target("m.f").options(horizon="moon")
    with pytest.raises(ValueError, match="is no overflow"):
        Target("m.f").options(overflow="drop")
