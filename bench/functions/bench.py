"""What is measured."""

from bourse import function, state


@function(http="POST /echo")
def echo(body):
    return body


@function(http="POST /put/{key}")
def put(key, body):
    state(key).set(body)
    return True
