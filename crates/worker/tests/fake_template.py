"""A fork server for the keeper's tests: double forks on request, and misbehaves on request (argv[1])."""
import os
import socket
import struct
import sys
import time

how = sys.argv[1]
control = socket.socket(fileno=int(os.environ["BOURSE_CONTROL_FD"]))


def varint(n):
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def read_varint(data, at):
    n = shift = 0
    while True:
        byte = data[at]
        at += 1
        n |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return n, at


def fields(data):
    found, at = {}, 0
    while at < len(data):
        tag, at = read_varint(data, at)
        n, at = read_varint(data, at)
        if tag & 7 == 2:
            found[tag >> 3] = data[at : at + n]
            at += n
        else:
            found[tag >> 3] = n
    return found


def send(message):
    control.sendall(struct.pack("<I", len(message)) + message)


def receive(n):
    data = b""
    while len(data) < n:
        piece = control.recv(n - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return data


def fork():
    """Returns the grandchild's pid in the parent, 0 in the grandchild."""
    r, w = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        grandchild = os.fork()
        if grandchild:
            os.write(w, struct.pack("<I", grandchild))
            os._exit(0)
        return 0
    pid = struct.unpack("<I", os.read(r, 4))[0]
    os.close(r)
    os.close(w)
    os.waitpid(child, 0)
    return pid


send(field(1, field(2, b"helper.py")))  # ready, with one file
if how == "garbage":
    control.sendall(b"\xff" * 64)
    time.sleep(3600)

while True:
    (length,) = struct.unpack("<I", receive(4))
    order = fields(fields(receive(length))[1])
    if how == "dies":
        os._exit(3)
    if how == "lies":
        send(field(3, field(1, order[1]) + field(2, 1)))
        continue
    if how == "refuses":
        send(field(3, field(1, order[1]) + field(3, b"out of memory")))
        continue
    pid = fork()
    if pid == 0:
        control.close()
        if how == "quick":
            os._exit(7)
        if how == "late":  # it carries its number before the keeper hears of it
            os.execve("/bin/sleep", ["sleep", "3600"], {"BOURSE_PROCESS": str(order[1])})
        assert order[2] == b"key", order
        time.sleep(3600)
    if how == "late":
        with open("forked", "w"):
            pass
        while not os.path.exists("go"):
            time.sleep(0.001)
    if how == "quick":
        # The keeper sees the exit before it hears of the process.
        while os.path.exists("/proc/%d" % pid):
            time.sleep(0.001)
    send(field(3, field(1, order[1]) + field(2, pid)))
