"""A hub where visitors throw blobs in, and blocks of chains come out.

A blob goes from `hopper`, which takes it, to `build`, which collects the blobs of a chain into blocks: one at a time for each
chain, as many chains at once as there is room for. Nobody waits for a block. Blobs are kept under their hash, and the
blocks of a chain under their height.

All that belongs to a chain is one scope: its head, its blocks, and the blobs that are in no block yet. So a blob is put
into exactly one block, whatever dies meanwhile: the call that carries it ends in the same commit.
"""

import hashlib
import json
from urllib.parse import quote

from bourse import Response, function, state

BLOCK = 100
"""Blobs of a block."""

OPEN = "5s"
"""How long a block that is not full stays open."""


@function(websocket="/hopper/{chain}")
def hopper(event: str, chain: str, message=None):
    """Takes what a visitor sends: each message is a blob for the chain. What comes back says that it is in for good."""
    if event == "message":
        return take(chain, message.encode() if isinstance(message, str) else message)


@function(http="POST /chains/{chain}")
def post(chain: str, body: bytes):
    """The same for visitors without a WebSocket."""
    return Response(take(chain, body), status=202)


def take(chain: str, content: bytes):
    """Keeps a blob, and has it built into a block."""
    blob = hashlib.sha256(content).hexdigest()
    keep.call(blob, content)
    build.start(chain, blob)
    return {"blob": blob}


@function
def keep(blob: str, content: bytes):
    """The blob store: a scope for each blob."""
    state(f"blob:{blob}").set(content)


@function(exclusive="chain:{chain}")
def build(chain: str, blob: str):
    """Adds a blob to the chain's open block, and seals the block if it is full."""
    collected = collect(chain)
    if not collected:
        seal.options(delay=OPEN).start(chain, last_block(chain)["height"] + 1)
    collected.append(blob)
    of(chain, "open").set(collected)
    if len(collected) == BLOCK:
        add_block(chain, collected)


@function(exclusive="chain:{chain}")
def seal(chain: str, height: int):
    """Seals a block that has been open for long enough, unless it was full before that."""
    if last_block(chain)["height"] < height:
        add_block(chain, collect(chain))


@function(http="GET /chains/{chain}")
def last_block(chain: str):
    """The head of a chain. One that has no block yet has a head of height 0."""
    return of(chain, "head").get({"height": 0, "hash": ""})


@function(http="GET /chains/{chain}/blocks/{height}")
def block(chain: str, height: int):
    """A block."""
    found = of(chain, f"block/{height:012}").get()
    return found or Response({"error": f"{chain} has no block {height}"}, status=404)


@function(http="GET /blobs/{blob}")
def blob(blob: str):
    """A blob, by its hash."""
    found = state(f"blob:{blob}").get()
    return Response({"error": f"there is no blob {blob}"}, status=404) if found is None else found


def of(chain: str, name: str):
    """A record of a chain."""
    return state(f"chain:{quote(chain, safe='')}/{name}")


def collect(chain: str):
    """The blobs of the block that is open."""
    return of(chain, "open").get([])


def add_block(chain: str, blobs: list):
    """The block store: puts a block on top of the last one."""
    last = last_block(chain)
    added = {"height": last["height"] + 1, "previous": last["hash"], "blobs": blobs}
    added["hash"] = hashlib.sha256(json.dumps(added).encode()).hexdigest()
    of(chain, f"block/{added['height']:012}").set(added)
    of(chain, "head").set({"height": added["height"], "hash": added["hash"]})
    of(chain, "open").delete()
