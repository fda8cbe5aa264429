"""What a socket's monitor tells. `zmq.utils.monitor` would do, but importing it imports asyncio, which is slow."""

from __future__ import annotations

import struct

import zmq

_EVENT = struct.Struct("=hi")  # the event and a value; libzmq's zmq_socket_monitor(3)


def next_event(monitor: zmq.Socket[bytes]) -> int:
    """The next event, without waiting. `zmq.Again` if there is none."""
    event, _ = _EVENT.unpack_from(monitor.recv_multipart(zmq.NOBLOCK)[0])
    return int(event)
