"""A worker for Bourse that uses nothing of Bourse's: ZeroMQ, protobuf and docs/protocol.md are enough."""

import collections
import os

import cbor2
import zmq
from worker_pb2 import ToNode, ToWorker

backlog = collections.deque()  # invocations that have not started, with their arguments
count = collections.Counter()  # requests and results are numbered
socket = zmq.Context().socket(zmq.DEALER)
running = None  # the invocation that runs
writes = []  # its changes of state


def echo(value):
    return value


def visit(name):  # reads state, and writes it: both take effect together, with the result
    visits = int(ask("read", {"key": {"name": f"visits/{name}"}}) or b"0") + 1
    writes.append({"key": {"name": f"visits/{name}"}, "value": b"%d" % visits})
    return visits


def tell(kind, fields, payload=b""):
    socket.send_multipart([ToNode(**{kind: fields}).SerializeToString(), payload])


def ask(kind, fields):
    count["requests"] += 1
    tell(kind, {"request": count["requests"], "call": running.call, "attempt": running.attempt, **fields})
    return listen(count["requests"])


def listen(request=None):  # until the answer to `request` is there, or until there is something to run
    while request or not backlog:
        header, payload = socket.recv_multipart()
        message = ToWorker.FromString(header)
        kind = message.WhichOneof("message")
        body = getattr(message, kind or "welcome")
        if kind == "invoke" or kind == "stop":
            backlog.append((body if kind == "invoke" else None, payload))
        elif kind == "ping":
            tell("pong", {"nonce": body.nonce})
        elif kind == "recall":
            asked = [(i.call, i.attempt) for i in body.calls]
            back = [one for one in backlog if one[0] and (one[0].call, one[0].attempt) in asked]
            for one in back:
                backlog.remove(one)
            tell("recalled", {"nonce": body.nonce, "calls": [{"call": i.call, "attempt": i.attempt} for i, _ in back]})
        elif kind == "refused":
            raise SystemExit(body.failure.message)
        elif kind == "value" and body.request == request:
            if body.HasField("failure"):
                raise RuntimeError(body.failure.message)
            return payload


def run(invoke, payload):
    args, named = cbor2.loads(payload) if payload else ([], {})
    writes.clear()
    count["results"] += 1
    result = {"call": invoke.call, "attempt": invoke.attempt, "seq": count["results"]}
    try:
        value = {"echo": echo, "visit": visit}[invoke.function](*args, **named)
        tell("result", {**result, "writes": writes}, cbor2.dumps(value))
    except Exception as error:
        failure = {"code": "function_error", "type": type(error).__name__, "message": str(error)}
        tell("result", {**result, "failure": failure})


with open(int(os.environ["BOURSE_SECRET_FD"]), "rb") as file:
    secret = file.read()
socket.connect(os.environ["BOURSE_ENDPOINT"])
offered = [("echo", "value", []), ("visit", "name", ["POST /visits/{name}"])]
functions = [{"name": f, "http": h, "parameters": [{"name": p, "type": "any", "required": True}]} for f, p, h in offered]
module = {"name": os.environ["BOURSE_MODULE"], "functions": functions}
tell("hello", {"version_min": 1, "version_max": 1, "role": 1, "secret": secret, "module": module, "pid": os.getpid()})
while True:
    listen()
    running, arguments = backlog.popleft()
    if running is None:
        break
    run(running, arguments)
tell("bye", {})
