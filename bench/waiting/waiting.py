"""What waits."""

from bourse import function


@function(http="POST /echo")
def echo(body):
    return body
