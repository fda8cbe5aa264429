"""The floor in Python: `zmq_echo.py serve ENDPOINT`, `zmq_echo.py latency|rate ENDPOINT SECONDS` prints one number."""

import statistics
import sys
from time import perf_counter as now

import zmq

PAYLOAD = b"x" * 100
IN_FLIGHT = 64

what, endpoint = sys.argv[1:3]
if what == "serve":
    router = zmq.Context().socket(zmq.ROUTER)
    router.bind(endpoint)
    while True:
        router.send_multipart(router.recv_multipart())

dealer = zmq.Context().socket(zmq.DEALER)
dealer.setsockopt(zmq.RECONNECT_IVL, 1)
dealer.connect(endpoint)
for _ in range(1000):
    dealer.send(PAYLOAD)
    dealer.recv()
end = now() + float(sys.argv[3])
if what == "latency":
    times = []
    while now() < end:
        begin = now()
        dealer.send(PAYLOAD)
        dealer.recv()
        times.append(now() - begin)
    print(statistics.median(times) * 1e6)
else:
    begin = now()
    for _ in range(IN_FLIGHT):
        dealer.send(PAYLOAD)
    done = 0
    while now() < end:
        dealer.recv()
        dealer.send(PAYLOAD)
        done += 1
    print(done / (now() - begin))
dealer.close(0)
