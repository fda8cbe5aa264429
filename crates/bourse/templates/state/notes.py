"""Notes that are kept on disk. The functions keep nothing between calls: all state is in the store."""

from bourse import Response, function, state

SCOPE = "notes"  # what comes before the slash of a key; all notes live together


@function(http="PUT /notes/{name}")
def write(name: str, body: str):
    """Stores a note, and says how often it was written."""
    note = state(f"{SCOPE}/{name}")
    times = note.get({"times": 0})["times"] + 1
    note.set({"text": body, "times": times})
    return {"name": name, "times": times}


@function(http="GET /notes/{name}")
def read(name: str):
    """A note's text."""
    note = state(f"{SCOPE}/{name}").get()
    if note is None:
        return Response({"error": f"there is no note {name}"}, status=404)
    return note


@function(http="GET /notes")
def names():
    """The names of all notes."""
    return [row.key.removeprefix(f"{SCOPE}/") for row in state(SCOPE).list(keys_only=True)]
