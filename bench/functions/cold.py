"""Its instances stop as soon as they are idle, so every call of it is a cold start."""

from bourse import function


@function(http="POST /cold")
def cold(body):
    return body
