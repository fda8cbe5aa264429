"""`bourse_client.py DATA latency|rate|fan SECONDS [FUNCTION]` prints one number, as `nats_client.py` does."""

import itertools
import statistics
import sys
from time import perf_counter as now

from bourse import Client

PAYLOAD = b"x" * 100
IN_FLIGHT = 64
FAN = 1000


def main(data: str, what: str, seconds: float, function: str = "bench.echo") -> None:
    with Client(data) as client:
        for answer in client.map(function, itertools.repeat(PAYLOAD, 2000)):
            assert answer == PAYLOAD
        end = now() + seconds
        if what == "latency":
            echo = client.function(function)
            times = []
            while now() < end:
                begin = now()
                assert echo.call(PAYLOAD) == PAYLOAD
                times.append(now() - begin)
            print(statistics.median(times) * 1e6)
        elif what == "rate":
            done = 0
            begin = now()
            answers = client.map(function, itertools.repeat(PAYLOAD), in_flight=IN_FLIGHT)
            for answer in answers:
                assert answer == PAYLOAD
                done += 1
                if now() > end:
                    break
            print(done / (now() - begin))
            answers.close()
        else:
            times = []
            while now() < end or len(times) < 5:
                begin = now()
                answers = client.gather(*[client.submit(function, PAYLOAD) for _ in range(FAN)])
                times.append(now() - begin)
                assert answers == [PAYLOAD] * FAN
            print(statistics.median(times) * 1e3)


main(sys.argv[1], sys.argv[2], float(sys.argv[3]), *sys.argv[4:])
