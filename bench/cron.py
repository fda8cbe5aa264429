"""How late functions are that a cron line calls every second, while a client keeps the daemon busy.

    cargo build --release && python3 bench/cron.py target/release/bourse [SECONDS]

Lateness is from the tick to the first line of the function: the call is on disk by then.
"""

import http.client
import json
import sys
import threading
import time
import urllib.request

from daemon import serving

TICKS = """
import time
from bourse import context, function, state

@function
def echo(x: int):
    return x

def late():
    state(f"late/{context.call_id}").set((time.time() - context.trigger.at.timestamp()) * 1000)

@function(http="GET /late")
def show():
    found, after = [], ""
    while True:
        page = state("late").list(limit=1000, after=after)
        found += [row.value for row in page]
        if not page.more:
            return found
        after = page.rows[-1].key
""" + "".join(f'\n@function(cron="* * * * * *")\ndef c{n}():\n    late()\n' for n in range(5))
CLIENTS = 16


def main() -> None:
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    with serving(sys.argv[1], "ticks.py", TICKS) as (_, address):
        until = time.monotonic() + seconds
        counts = [0] * CLIENTS
        clients = [threading.Thread(target=load, args=(address, until, counts, n)) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        late = sorted(json.load(urllib.request.urlopen(f"http://{address}/late")))

    def at(part: float) -> float:
        return late[min(int(len(late) * part), len(late) - 1)]

    print(
        f"{len(late)} ticks beside {sum(counts) / seconds:.0f} calls/s: "
        f"p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, worst {late[-1]:.1f} ms late"
    )


def load(address: str, until: float, counts: list, n: int) -> None:
    connection = http.client.HTTPConnection(address)
    while time.monotonic() < until:
        connection.request("POST", "/v1/call/ticks.echo", b'{"x": 1}', {"content-type": "application/json"})
        connection.getresponse().read()
        counts[n] += 1


if __name__ == "__main__":
    main()
