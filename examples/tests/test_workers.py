"""The workers that use nothing of ours, against a node that is played by the test."""

import os
import subprocess
import sys
from pathlib import Path

import cbor2
import pytest
import zmq

EXAMPLES = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(EXAMPLES / "worker_plain"))

from worker_pb2 import ToNode, ToWorker  # noqa: E402

TIMEOUT_MS = 20_000


class Node:
    """One side of the conversation: says `ToWorker`, hears `ToNode`."""

    def __init__(self, tmp_path, folder, *command):
        self.socket = zmq.Context.instance().socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.rcvtimeo = TIMEOUT_MS
        self.socket.bind(f"ipc://{tmp_path}/w")
        read, write = os.pipe()
        os.write(write, b"a secret")
        os.close(write)
        env = {"BOURSE_ENDPOINT": f"ipc://{tmp_path}/w", "BOURSE_SECRET_FD": str(read), "BOURSE_MODULE": folder.name}
        self.process = subprocess.Popen(
            command, cwd=folder, env={**env, "PATH": os.environ["PATH"]}, pass_fds=[read]
        )
        os.close(read)
        self.peer = None

    def hear(self, kind):
        self.peer, header, payload = self.socket.recv_multipart()
        message = ToNode.FromString(header)
        assert message.WhichOneof("message") == kind, message
        return getattr(message, kind), payload

    def say(self, payload=b"", **message):
        self.socket.send_multipart([self.peer, ToWorker(**message).SerializeToString(), payload])

    def welcome(self):
        hello, _ = self.hear("hello")
        assert hello.secret == b"a secret" and hello.version_min <= 1 <= hello.version_max
        self.say(welcome={"version": 1, "incarnation": 7, "payload_max": 1 << 24, "ping_ms": 5000})
        return hello

    def invoke(self, number, function, *args, **named):
        invoke = {"call": number.to_bytes(16, "big"), "attempt": 1, "function": function, "timeout_ms": 60_000}
        self.say(cbor2.dumps([list(args), named]), invoke=invoke)

    def result(self, number):
        result, payload = self.hear("result")
        assert (result.call, result.attempt) == (number.to_bytes(16, "big"), 1)
        return result, cbor2.loads(payload) if payload else None

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.socket.close()


@pytest.fixture
def plain(tmp_path):
    node = Node(tmp_path, EXAMPLES / "worker_plain", sys.executable, "worker.py")
    yield node
    node.end()


@pytest.fixture
def javascript(tmp_path):
    folder = Path(os.environ.get("BOURSE_TEST_NODE_WORKER", EXAMPLES / "worker_node"))
    node = Node(tmp_path, folder, "node", "worker.js")
    yield node
    node.end()


def stops(node):
    node.say(stop={})
    node.hear("bye")
    assert node.process.wait(20) == 0


def test_plain_answers_and_leaves(plain):
    hello = plain.welcome()
    assert [f.name for f in hello.module.functions] == ["echo", "visit"]
    plain.invoke(1, "echo", {"a": [1, 2.5, None]})
    plain.invoke(2, "echo", value="named")
    assert plain.result(1)[1] == {"a": [1, 2.5, None]}
    result, value = plain.result(2)
    assert (value, result.seq) == ("named", 2)
    stops(plain)


def test_plain_reads_and_writes_state(plain):
    plain.welcome()
    plain.invoke(1, "visit", "ada")
    read, _ = plain.hear("read")
    assert read.key.name == "visits/ada"
    plain.say(ping={"nonce": 3})
    assert plain.hear("pong")[0].nonce == 3
    plain.say(b"41", value={"request": read.request, "found": True, "version": 9})
    result, value = plain.result(1)
    assert value == 42
    assert [(w.key.name, w.value) for w in result.writes] == [("visits/ada", b"42")]
    stops(plain)


def test_plain_fails_politely(plain):
    plain.welcome()
    plain.invoke(1, "echo")
    failure = plain.result(1)[0].failure
    assert (failure.code, failure.type) == ("function_error", "TypeError")
    plain.invoke(2, "echo", "and goes on")
    assert plain.result(2)[1] == "and goes on"


def test_plain_gives_back_what_it_has_not_started(plain):
    plain.welcome()
    plain.invoke(1, "visit", "ada")
    read, _ = plain.hear("read")
    plain.invoke(2, "echo", "ahead")
    calls = [{"call": n.to_bytes(16, "big"), "attempt": 1} for n in (1, 2)]
    plain.say(recall={"nonce": 5, "calls": calls})
    recalled, _ = plain.hear("recalled")
    assert recalled.nonce == 5 and [int.from_bytes(c.call, "big") for c in recalled.calls] == [2]
    plain.say(value={"request": read.request})
    assert plain.result(1)[1] == 1
    stops(plain)


def test_plain_says_why_it_was_refused(plain):
    plain.hear("hello")
    plain.say(refused={"failure": {"code": "protocol_version", "message": "this node speaks version 2"}})
    assert plain.process.wait(20) == 1


def test_javascript_answers_while_it_is_pinged(javascript):
    hello = javascript.welcome()
    assert [f.name for f in hello.module.functions] == ["greet", "slow", "greet_all"]
    javascript.invoke(1, "slow", 0.3)
    javascript.invoke(2, "greet", "Ada")
    javascript.say(ping={"nonce": 3})
    assert javascript.hear("pong")[0].nonce == 3
    assert javascript.result(1)[1] == 0.3
    assert javascript.result(2)[1] == "Hello, Ada!"
    stops(javascript)


def test_javascript_calls_others(javascript):
    javascript.welcome()
    javascript.invoke(1, "greet_all", ["Ada", "Bob"])
    asked = {}
    for _ in range(2):
        call, payload = javascript.hear("call")
        assert (call.function, call.parent) == ("worker_node.greet", (1).to_bytes(16, "big"))
        asked[cbor2.loads(payload)[0][0]] = call.request
    wait, _ = javascript.hear("wait")
    assert list(wait.requests) == [asked["Ada"], asked["Bob"]]
    for name in ("Bob", "Ada"):
        javascript.say(cbor2.dumps(f"Hello, {name}!"), reply={"request": asked[name]})
    assert javascript.result(1)[1] == ["Hello, Ada!", "Hello, Bob!"]
    stops(javascript)


def test_javascript_gives_back_what_it_has_not_started(javascript):
    javascript.welcome()
    javascript.invoke(1, "slow", 0.3)
    javascript.invoke(2, "greet", "ahead")
    calls = [{"call": n.to_bytes(16, "big"), "attempt": 1} for n in (1, 2)]
    javascript.say(recall={"nonce": 5, "calls": calls})
    recalled, _ = javascript.hear("recalled")
    assert [int.from_bytes(c.call, "big") for c in recalled.calls] == [2]
    assert javascript.result(1)[1] == 0.3
    stops(javascript)


def test_javascript_fails_politely(javascript):
    javascript.welcome()
    javascript.invoke(1, "greet_all", 7)
    failure = javascript.result(1)[0].failure
    assert (failure.code, failure.type) == ("function_error", "TypeError")
