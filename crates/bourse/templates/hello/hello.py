"""Functions that are served: every public function of this file can be called."""


def hello(name: str = "world") -> str:
    """Greets somebody."""
    return f"hello {name}"


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b
