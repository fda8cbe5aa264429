"""How fast one worker is: calls per second, and its CPU time per call.

A tight ROUTER in this process stands in for the node; so calls per second are bounded by Python at both ends, while the
CPU time per call is the worker's own (main thread and ZeroMQ's I/O thread). Usage: python bench/echo.py [CALLS] [--profile]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import zmq

SOURCE = Path(__file__).resolve().parent.parent / "src"
sys.path.insert(0, str(SOURCE))

from bourse import _messages as messages  # noqa: E402
from bourse import _values as values  # noqa: E402

MODULE = "def echo(x):\n    return x\n"


def spawn(folder: Path, endpoint: str, profile: bool) -> subprocess.Popen[bytes]:
    read, write = os.pipe()
    os.write(write, b"secret")
    os.close(write)
    command = [sys.executable, "-m", "bourse._worker"]
    if profile:
        command = [sys.executable, str(Path(__file__).with_name("profiled.py"))]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "BOURSE_SECRET_FD": str(read)}
    process = subprocess.Popen(
        [*command, str(folder / "echoing.py"), "--root", str(folder), "--endpoint", endpoint],
        env=environment,
        pass_fds=(read,),
    )
    os.close(read)
    return process


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads, from the scheduler's nanoseconds."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return total / 1e9


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    profile = "--profile" in sys.argv
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "echoing.py").write_text(MODULE)
        endpoint = f"ipc://{folder}/node"
        router = zmq.Context().socket(zmq.ROUTER)
        router.linger = 0
        router.bind(endpoint)
        process = spawn(folder, endpoint, profile)
        peer = router.recv_multipart()[0]
        welcome = messages.ToWorker()
        welcome.welcome.version = 1
        welcome.welcome.payload_max = 1 << 24
        router.send_multipart([peer, welcome.SerializeToString(), b""])
        message = messages.ToWorker()
        invoke = message.invoke
        invoke.call, invoke.attempt, invoke.function, invoke.timeout_ms = b"0123456789abcdef", 1, "echo", 60_000
        invoke.root = invoke.call
        invoke.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        payload = values.encode_arguments(("x" * 100,), {})
        sequence = 0
        for ahead in (1, 4, 8, 1, 4, 8):
            before, start = cpu_seconds(process.pid), time.perf_counter()
            for done in range(-ahead, calls):
                if done >= 0:
                    router.recv()
                    router.recv()
                    router.recv()
                    sequence += 1
                if done < calls - ahead:
                    invoke.acked = sequence
                    router.send(peer, zmq.SNDMORE)
                    router.send(message.SerializeToString(), zmq.SNDMORE)
                    router.send(payload)
            seconds = time.perf_counter() - start
            cpu = cpu_seconds(process.pid) - before
            print(f"{ahead} ahead: {calls / seconds:8,.0f} calls/s   {cpu / calls * 1e6:5.1f} µs CPU of the worker per call")
        stop = messages.ToWorker()
        stop.stop.SetInParent()
        router.send_multipart([peer, stop.SerializeToString(), b""])
        process.wait()


if __name__ == "__main__":
    main()
