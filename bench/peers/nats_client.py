"""`nats_client.py URL latency|rate|fan SECONDS` prints one number: microseconds (p50), calls per second, milliseconds."""

import asyncio
import statistics
import sys
from time import perf_counter as now

import nats

PAYLOAD = b"x" * 100
IN_FLIGHT = 64
FAN = 1000


async def main(url: str, what: str, seconds: float) -> None:
    connection = await nats.connect(url)

    async def call() -> None:
        answer = await connection.request("f.echo", PAYLOAD, timeout=10)
        assert answer.data == PAYLOAD

    for _ in range(300):
        await call()
    end = now() + seconds
    if what == "latency":
        times = []
        while now() < end:
            begin = now()
            await call()
            times.append(now() - begin)
        print(statistics.median(times) * 1e6)
    elif what == "rate":
        done = 0

        async def runner() -> None:
            nonlocal done
            while now() < end:
                await call()
                done += 1

        begin = now()
        await asyncio.gather(*[runner() for _ in range(IN_FLIGHT)])
        print(done / (now() - begin))
    else:
        times = []
        while now() < end or len(times) < 5:
            begin = now()
            await asyncio.gather(*[call() for _ in range(FAN)])
            times.append(now() - begin)
        print(statistics.median(times) * 1e3)
    await connection.close()


asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
