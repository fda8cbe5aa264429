"""10,000 WebSocket connections: what they cost while nothing happens, and how long a message to all of them takes.

    cargo build --release && python3 bench/websocket.py target/release/bourse [CONNECTIONS]

The clients are bare sockets of this process, so that what is measured is the daemon. It needs twice as many file
descriptors as connections (`ulimit -n`).
"""

import json
import pathlib
import select
import socket
import sys
import threading
import time
import urllib.request

from daemon import serving

HUB = """
from bourse import function

@function(websocket="/hub/{room}")
def talk(event, connection, room):
    if event == "open":
        return {"groups": [room]}
"""
TOGETHER = 200


def main() -> None:
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    with serving(sys.argv[1], "hub.py", HUB) as (pid, address):
        measure(pid, address, wanted)


def measure(pid: int, address: str, wanted: int) -> None:
    before = resident(pid)
    sockets = connect(address, wanted)
    time.sleep(1)
    idle = resident(pid)
    print(f"{wanted} idle connections: {idle:.1f} MB resident, {(idle - before) * 1024 / wanted:.1f} KiB each")
    poll = select.epoll()
    for one in sockets:
        one.setblocking(False)
        poll.register(one.fileno(), select.EPOLLIN)
    by_number = {one.fileno(): one for one in sockets}
    for _ in range(5):
        began = time.perf_counter()
        sender = threading.Thread(target=send, args=(address,))
        sender.start()
        heard = 0
        while heard < wanted:
            for number, _event in poll.poll(10):
                by_number[number].recv(65536)
                heard += 1
        print(f"a message to all: {(time.perf_counter() - began) * 1000:.0f} ms until the last one had it")
        sender.join()


def connect(address: str, wanted: int) -> list:
    host, port = address.split(":")
    request = (
        f"GET /hub/all HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
    sockets: list = []
    while len(sockets) < wanted:
        some = [socket.create_connection((host, int(port))) for _ in range(min(TOGETHER, wanted - len(sockets)))]
        for one in some:
            one.sendall(request)
        for one in some:
            head = b""
            while b"\r\n\r\n" not in head:
                head += one.recv(4096)
            assert b" 101 " in head, head
        sockets += some
    return sockets


def send(address: str) -> None:
    body = json.dumps({"to": "group:all", "message": "x" * 100}).encode()
    request = urllib.request.Request(
        f"http://{address}/v1/call/bourse.send", data=body, headers={"content-type": "application/json"}
    )
    urllib.request.urlopen(request).read()


def resident(pid: int) -> float:
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


if __name__ == "__main__":
    main()
