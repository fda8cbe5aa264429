"""Writes real text into a running treedb and reads it back: python3 load.py [URL] [FOLDER]

Every text file of the folder (the licences that Debian keeps, if none is named) becomes a key, and each of its lines a
child of that. Needs nothing but Python; writes with 16 connections at a time.
"""

import http.client
import itertools
import sys
import threading
import time
import urllib.parse
from pathlib import Path

CONNECTIONS = 16


def lines(folder: Path):
    """Keys and values: "licences/GPL-2/0017" and the text of that line."""
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
        try:
            text = file.read_text()
        except (UnicodeDecodeError, OSError):
            continue
        name = str(file.relative_to(folder))
        for number, line in enumerate(text.splitlines()):
            yield f"{folder.name}/{name}/{number:04}", line


def path(key: str) -> str:
    return "/kv/" + urllib.parse.quote(key, safe="")


def spread(address: str, work, pairs) -> None:
    """Does `work` for all pairs, over several connections."""
    iterator, lock, errors = iter(pairs), threading.Lock(), []

    def run() -> None:
        connection = http.client.HTTPConnection(address)
        while not errors:
            with lock:
                pair = next(iterator, None)
            if pair is None:
                return
            try:
                work(connection, *pair)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def write(connection: http.client.HTTPConnection, key: str, value: str) -> None:
    connection.request("POST", path(key), value.encode(), {"Content-Type": "text/plain; charset=utf-8"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"writing {key}: {answer.status} {body!r}")


def read(connection: http.client.HTTPConnection, key: str, value: str) -> None:
    connection.request("GET", path(key))
    answer = connection.getresponse()
    body = answer.read().decode()
    if answer.status != 200 or body != value:
        raise RuntimeError(f"{key} reads {body!r}, and {value!r} was written")


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7070"
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "/usr/share/common-licenses")
    address = urllib.parse.urlsplit(url).netloc
    pairs = list(itertools.islice(lines(folder), 100_000))
    for name, work in (("written", write), ("read back", read)):
        start = time.monotonic()
        spread(address, work, pairs)
        took = time.monotonic() - start
        print(f"{len(pairs)} key-values {name} in {took:.1f} s ({len(pairs) / took:.0f}/s)")


if __name__ == "__main__":
    main()
