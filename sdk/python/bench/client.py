"""How many calls per second one client makes, with a tight ROUTER in a process of its own as the node.

Usage: python bench/client.py [CALLS]
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import zmq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import bourse  # noqa: E402
from bourse import _messages as messages  # noqa: E402


def node(endpoint: str) -> None:
    router = zmq.Context().socket(zmq.ROUTER)
    router.bind(endpoint)
    answer = messages.ToWorker()
    while True:
        peer, header, payload = router.recv(), router.recv(), router.recv()
        message = messages.ToNode.FromString(header)
        kind = message.WhichOneof("message")
        if kind == "hello":
            answer.welcome.payload_max = 1 << 24
        elif kind == "call":
            answer.reply.request = message.call.request
        else:
            continue
        router.send(peer, zmq.SNDMORE)
        router.send(answer.SerializeToString(), zmq.SNDMORE)
        router.send(payload)


def sync(endpoint: str, calls: int, in_flight: int) -> None:
    with bourse.Client(endpoint, token="t") as client:
        echo = client.function("echoing.echo")
        start, cpu = time.perf_counter(), time.process_time()
        under_way: deque[bourse.Future[object]] = deque()
        for _ in range(calls):
            under_way.append(echo.submit("x" * 100))
            if len(under_way) >= in_flight:
                under_way.popleft().result()
        while under_way:
            under_way.popleft().result()
        report(f"Client, {in_flight} in flight", calls, start, cpu)


async def with_loop(endpoint: str, calls: int, in_flight: int) -> None:
    async with bourse.AsyncClient(endpoint, token="t") as client:
        start, cpu = time.perf_counter(), time.process_time()
        async for _ in client.map("echoing.echo", range(calls), in_flight=in_flight):
            pass
        report(f"AsyncClient, {in_flight} in flight", calls, start, cpu)


def report(what: str, calls: int, start: float, cpu: float) -> None:
    seconds, busy = time.perf_counter() - start, time.process_time() - cpu
    print(f"{what}: {calls / seconds:8,.0f} calls/s   {busy / calls * 1e6:5.1f} µs CPU per call")


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/node"
        process = multiprocessing.get_context("fork").Process(target=node, args=(endpoint,), daemon=True)
        process.start()
        for in_flight in (1, 8, 64):
            sync(endpoint, calls, in_flight)
        asyncio.run(with_loop(endpoint, calls, 64))
        process.kill()


if __name__ == "__main__":
    main()
