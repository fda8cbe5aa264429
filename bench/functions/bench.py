"""What is measured."""

from bourse import function, state


@function(http="POST /echo")
def echo(body):
    return body


@function(http="POST /put/{key}")
def put(key, body):
    state(key).set(body)
    return True


@function(http="POST /durable", retry=True)
def durable(body):
    return body
