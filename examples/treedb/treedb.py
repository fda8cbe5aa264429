"""A small key-value service whose keys form a tree.

A key is a path such as "licences/GPL-2". Writing it stores its value, and lists it as a child of "licences", and that
as a child of the root, "". The functions keep nothing between calls: all state is in the store.

Each key is a scope of its own (see `scope`): its value and the list of its children change together, and apart from
every other key's. So `write` does not touch its parent's list itself: it calls `insert`, a function at the parent's
home. `insert` commits before `write` does. If the daemon dies between the two, the parent lists a child that has no
value yet; reading that child gives 404, and writing it again mends it. It is never the other way round: a key that
has a value is listed.

`sort` is a job of another kind: slow, internal, and run now and then. It puts the children of a key in the order of their
values, page by page, while others go on writing.
"""

import heapq
from urllib.parse import quote

from bourse import Response, context, function, state

PAGE = 1000
"""Children of one page, at most."""

AT_ONCE = 2
"""Pages that are sorted at the same time: the other places are for those who read and write meanwhile."""


def scope(key: str) -> str:
    """The scope of a key: what comes before the first slash of a state key, so it holds no slash itself."""
    return "k:" + quote(key, safe="")


@function(http="POST /kv/{key}", exclusive="{key}")
def write(key: str, body: str):
    """Stores a value under a key. Of those who write one key at once, the one that came last has the last word."""
    parent, _, name = key.rpartition("/")
    if not name:
        return Response({"error": "a key does not end with a slash"}, status=400)
    insert.call(parent, name)
    state(f"{scope(key)}/value").set(body)
    return {"key": key, "stored": len(body)}


@function
def insert(parent: str, name: str):
    """Lists `name` as a child of `parent`, and `parent` as a child of its own parent."""
    row = state(f"{scope(parent)}/child/{name}")
    if row.get() is not None:
        return False
    if parent:
        grandparent, _, parent_name = parent.rpartition("/")
        insert.call(grandparent, parent_name)
    row.set(True)
    return True


@function(http="GET /kv/{key}")
def read(key: str):
    """The value under a key."""
    value = state(f"{scope(key)}/value").get()
    if value is None:
        return Response({"error": f"there is nothing under {key}"}, status=404)
    return Response(value)


@function(http=["GET /kv/{key}/children", "GET /kv"])
def children(key: str = "", after: str = "", limit: int = 100):
    """The names of a key's children in byte order, a page at a time: pass `next` as `after` for the next one."""
    below = f"{scope(key)}/child/"
    page = state(scope(key)).list("child/", after=below + after if after else "", limit=min(limit, PAGE), keys_only=True)
    names = [row.key.removeprefix(below) for row in page.rows]
    return {"children": names, "next": names[-1] if page.more else None}


@function(unique={"key": "{key}", "window": "running"})
def sort(key: str):
    """Puts the children of a key in the order of their values, for `in_order`. Who asks while it runs gets that one's result.

    It touches no state itself, so nothing that is written meanwhile can be in its way: each page is a call of its own.
    """
    sorted_pages = sort_page.starmap(((key, names) for names in pages(key)), in_flight=AT_ONCE)
    names = [name for _, name in heapq.merge(*sorted_pages)]
    order = context.call_id  # the same in each attempt
    starts = range(0, len(names), PAGE)
    written = ((key, order, at // PAGE, names[at : at + PAGE]) for at in starts)
    for _ in write_page.starmap(written, in_flight=AT_ONCE):
        pass
    use_order.call(key, order)
    return {"order": order, "children": len(names), "pages": len(starts)}


def pages(key: str):
    """The names of all children, a page at a time."""
    after = ""
    while after is not None:
        page = children.call(key, after, PAGE)
        yield page["children"]
        after = page["next"]


@function
def sort_page(key: str, names: list):
    """Children with their values, in the order of these. A child that has no value yet comes first."""
    return sorted([state(f"{scope(f'{key}/{name}')}/value").get(""), name] for name in names)


@function
def write_page(key: str, order: str, number: int, names: list):
    """A page of an order that nobody reads yet."""
    state(f"{scope(key)}/order/{order}/{number:06}").set(names)


@function
def use_order(key: str, order: str):
    """From now on this order is read, and all others are gone."""
    state(f"{scope(key)}/ordered").set(order)
    for row in state(scope(key)).list("order/", limit=PAGE, keys_only=True):
        if order not in row.key:
            state(row.key).delete()


@function(http="GET /kv/{key}/ordered")
def in_order(key: str, page: int = 0):
    """The names of a key's children in the order of their values when they were last sorted, a page at a time."""
    order = state(f"{scope(key)}/ordered").get()
    return {"order": order, "children": state(f"{scope(key)}/order/{order}/{page:06}").get([])}
