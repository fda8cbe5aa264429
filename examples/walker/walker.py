"""Walkers: they go along a chain block by block, and keep what they find.

A chain is a list of payments that goes backwards: every block has the hash of the one before it. A walker follows it to the
beginning, and adds up what each account has received, in a *projection* of its own. It hands its call on from block to block,
by `tail`: the whole walk is one call, of any length, in constant space. What a step changes takes effect together with
handing on, so after a crash a walk goes on at its block, and counts no block twice.

A walker holds the lock on its projection from its first block to its last: who wants to walk with the same projection
waits, all others walk at the same time.

`survey` does the same for who is in a hurry: it looks up where the chain can be entered, walks the ranges side by side, and
merges what they have found.
"""

import hashlib
import json
from collections import Counter

from bourse import function, gather, state

STRIDE = 100
"""Every so many blocks the index has an entry."""


# ---------------------------------------------------------------- the chain


@function
def grow(chain: str, payments: list):
    """Puts blocks on a chain, one for each [account, amount]."""
    head = last_block(chain)
    for account, amount in payments:
        block = {"height": head["height"] + 1, "previous": head["hash"], "account": account, "amount": amount}
        head = {"height": block["height"], "hash": hashlib.sha256(json.dumps(block).encode()).hexdigest()}
        state(f"chain:{chain}/block/{head['hash']}").set(block)
        if head["height"] % STRIDE == 0:
            state(f"chain:{chain}/index/{head['height']:012}").set(head["hash"])
    state(f"chain:{chain}/head").set(head)
    return head


@function
def last_block(chain: str):
    """The head of a chain: its height, and the hash of its last block."""
    return state(f"chain:{chain}/head").get({"height": 0, "hash": ""})


@function
def offsets(chain: str):
    """Where a chain can be entered: hashes from the last one to the first, every `STRIDE` blocks."""
    entries = [row.value for row in state(f"chain:{chain}").list("index/", limit=1000)]
    head = last_block(chain)["hash"]
    return ([head] if head and entries[-1:] != [head] else []) + entries[::-1]


# ---------------------------------------------------------------- one walker


@function(exclusive="projection:{projection}")
def walk(projection: str, chain: str, first: str = "", until: str = ""):
    """Walks from a block, or the head of the chain, to its beginning, or until before another block."""
    for row in state(f"projection:{projection}").list(limit=1000, keys_only=True):
        state(row.key).delete()
    first = first or last_block.call(chain)["hash"]
    return step.tail(projection, chain, first, until) if first else {}


@function
def step(projection: str, chain: str, block: str, until: str):
    """Takes in one block. The last step returns what the walk has collected."""
    walked = state(f"projection:{projection}/walked")
    walked.set(walked.get(0) + 1)
    found = state(f"chain:{chain}/block/{block}").get()
    received = state(f"projection:{projection}/received/{found['account']}")
    received.set(received.get(0) + found["amount"])
    if found["previous"] != until:
        return step.tail(projection, chain, found["previous"], until)
    return collected(projection)


@function
def collected(projection: str):
    """What each account has received, as far as the walker has come."""
    rows = state(f"projection:{projection}").list("received/", limit=1000)
    return {row.key.rpartition("/")[2]: row.value for row in rows}


# ---------------------------------------------------------------- several, side by side


@function
def survey(chain: str, ranges: int = 4):
    """The same for a whole chain, by walkers of ranges that are about as long as each other."""
    entries = offsets.call(chain)
    if not entries:
        return {}
    bounds = [entries[len(entries) * n // ranges] for n in range(ranges)] + [""]
    patient = walk.options(timeout="1h")
    walks = [
        patient.submit(f"{chain}.{n}", chain, first, until)
        for n, (first, until) in enumerate(zip(bounds, bounds[1:]))
        if first != until
    ]
    total: Counter = Counter()
    for found in gather(*walks):
        total.update(found)
    return dict(total)
