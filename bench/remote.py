"""What a call costs that runs on another node, beside one that runs where it was accepted.

    cargo build --release && python3 bench/remote.py target/release/bourse [ROUNDS]

Two daemons on one machine, and two more that are told to use no sockets: CURVE between them, over ipc and over tcp. The first of
two has one slot, which a long call holds, so all other calls are bought from the second. These are timed in turn, in
small rounds, so that they see the same machine: a call at a second node (it runs there), a call at the first one (it runs at
the second) over ipc, the same over tcp, and one byte there and back over tcp between two processes. Then 32 callers at
once at each.
"""

import http.client
import json
import multiprocessing
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ECHO = """
import time
from bourse import function

@function
def echo(x: int):
    return x

@function(timeout=3600)
def hold(seconds: float):
    time.sleep(seconds)
"""
CALLS = 200


def main() -> None:
    binary = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    with tempfile.TemporaryDirectory(prefix="b-") as place:
        pairs, processes = {}, []
        try:
            for by in ("ipc", "tcp"):
                pairs[by], started = pair(binary, Path(place, by), "--set", f"ipc={'true' if by == 'ipc' else 'false'}")
                processes += started
            measure(pairs, rounds)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def pair(binary: str, place: Path, *arguments: str) -> tuple:
    """Two nodes: the addresses of both, and the processes."""
    place.mkdir()
    folders = [place / name for name in ("first", "second")]
    keys = [key(binary, folder) for folder in folders]
    port = free_port()
    first = start(
        binary, folders[0], "--listen", f"127.0.0.1:{port}", "--allow", keys[1], "--set", "running=1", *arguments
    )  # fmt: skip
    second = start(
        binary, folders[1], "--listen", "127.0.0.1:0", "--allow", keys[0],
        "--join", f"{keys[0]}@127.0.0.1:{port}", "--set", "running=4", *arguments,
    )  # fmt: skip
    return (first[1], second[1]), [first[0], second[0]]


def measure(pairs: dict, rounds: int) -> None:
    for by, (first, second) in pairs.items():
        wait_until(lambda: by in [node["by"] for node in get(first, "/v1/nodes")])
        # At home, or another node might have a slot sooner.
        threading.Thread(target=call, args=(first, "hold?horizon=process", {"seconds": 3600}), daemon=True).start()
        wait_until(lambda: get(first, "/v1/status")["running"] == 1)
        timed(first, 500), timed(second, 500)
    times = {"at home": [], "ipc": [], "tcp": [], "one byte": []}
    bounce = Bounce()
    for at in range(rounds):
        times["at home"] += timed(pairs["tcp"][1], CALLS)
        # Who goes first changes.
        for by in ("ipc", "tcp") if at % 2 else ("tcp", "ipc"):
            times[by] += timed(pairs[by][0], CALLS)
        times["one byte"] += bounce.timed(CALLS)
    for _, second in pairs.values():
        assert get(second, "/v1/market")["sold"], "the calls were bought"
    p50 = {name: statistics.median(found) * 1e6 for name, found in times.items()}
    p99 = {name: sorted(found)[len(found) * 99 // 100] * 1e6 for name, found in times.items()}
    # What it takes where other programs leave the machine alone, on one that is busy.
    p10 = {name: sorted(found)[len(found) // 10] * 1e6 for name, found in times.items()}
    home = (p10["at home"], p50["at home"], p99["at home"])
    print("a call that runs where it was accepted:      p10 {:.0f} us, p50 {:.0f} us, p99 {:.0f} us".format(*home))
    for by in pairs:
        more = p50[by] - p50["at home"]
        print(
            f"a call that runs on the other node, by {by}:  p10 {p10[by]:.0f} us, p50 {p50[by]:.0f} us, p99 {p99[by]:.0f} us; "
            f"the way there costs {more:.0f} us, {more / p50['one byte']:.2f} x one byte"
        )
    print(f"one byte over tcp, there and back:           p50 {p50['one byte']:.0f} us")
    at_home = throughput(pairs["tcp"][1])
    for by, (first, _) in pairs.items():
        elsewhere = throughput(first)
        print(f"32 callers at once: {at_home:.0f} calls/s at home, {elsewhere:.0f} by {by}: {elsewhere / at_home:.2f} x")


def key(binary: str, folder: Path) -> str:
    folder.mkdir()
    (folder / "echo.py").write_text(ECHO)
    made = subprocess.run([binary, "init", str(folder), "--json"], check=True, capture_output=True)
    return json.loads(made.stdout)["key"]


def start(binary: str, folder: Path, *arguments: str) -> tuple:
    ready = folder.with_suffix(".ready")
    command = [binary, "up", str(folder), "--http", "127.0.0.1:0", "--ready-file", str(ready), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(ready.exists)
    contact = json.loads((folder / ".bourse" / "daemon.json").read_text())
    return process, contact["http"].removeprefix("http://")


def wait_until(done) -> None:
    until = time.monotonic() + 60
    while not done():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(address: str, path: str):
    connection = http.client.HTTPConnection(address)
    connection.request("GET", path)
    return json.load(connection.getresponse())


def call(address: str, function: str, arguments: dict) -> None:
    connection = http.client.HTTPConnection(address, timeout=4000)
    connection.request("POST", f"/v1/call/echo.{function}", json.dumps(arguments), {"content-type": "application/json"})
    try:
        connection.getresponse().read()
    except OSError:
        pass  # The daemon was stopped.


def timed(address: str, calls: int) -> list:
    host, port = address.split(":")
    body = b'{"x":1}'
    request = (
        f"POST /v1/call/echo.echo HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
    times = []
    with socket.create_connection((host, int(port))) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(calls):
            began = time.perf_counter()
            s.sendall(request)
            answer = s.recv(65536)
            times.append(time.perf_counter() - began)
            assert answer.startswith(b"HTTP/1.1 200"), answer
    return times


def throughput(address: str, seconds: float = 3.0) -> float:
    counts = multiprocessing.Array("Q", 2)

    def load(half: int) -> None:
        until = time.monotonic() + seconds

        def one() -> None:
            while time.monotonic() < until:
                with_lock = len(timed(address, 20))
                with counts.get_lock():
                    counts[half] += with_lock

        threads = [threading.Thread(target=one) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    processes = [multiprocessing.Process(target=load, args=(half,)) for half in range(2)]
    began = time.monotonic()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return sum(counts) / (time.monotonic() - began)


class Bounce:
    """One byte to another process and back."""

    def __init__(self) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            self.other = multiprocessing.Process(target=self.echo, args=(listener,), daemon=True)
            self.other.start()
            self.line = socket.create_connection(listener.getsockname())
        self.line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @staticmethod
    def echo(listener: socket.socket) -> None:
        line, _ = listener.accept()
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while said := line.recv(1):
            line.sendall(said)

    def timed(self, rounds: int) -> list:
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            self.line.sendall(b"x")
            self.line.recv(1)
            times.append(time.perf_counter() - began)
        return times


if __name__ == "__main__":
    main()
