"""Values on the wire: arguments, results and state, to and from bytes.

Arguments are deterministic CBOR (RFC 8949, section 4.2.1), since equal arguments must be equal
bytes. Results and state values are CBOR that keeps the order of dictionaries, since that is what a person reads
in the JSON made of them. A result of `bytes` travels as it is, as `application/octet-stream`.

Beyond what CBOR knows: dataclasses and pydantic models become dictionaries, enumerations their values,
numpy scalars and arrays numbers and lists, paths and times of day text. Tuples arrive as lists. Datetimes, dates,
`Decimal`, `Fraction`, `UUID`, sets and IP addresses arrive as what they were, by CBOR's tags. A datetime without a
zone is refused: it would mean another moment on another machine.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import os
from collections.abc import Mapping
from typing import Any, Optional

import cbor2

CBOR = ""  # what an empty content type means
BYTES = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"

_loads = cbor2.loads
_dumps = cbor2.dumps
DEPTH_MAX = 64  # how deep a refused value is searched for its reason

EMPTY_ARGUMENTS = _dumps([[], {}])

REFUSED: dict[type, str] = {}  # what can't be sent though it is ours, and what to do instead


class Response:
    """A result that says how it is answered over HTTP.

    `bytes` are sent as they are, `str` as text, anything else as CBOR, of which HTTP clients are given JSON;
    with `content_type="application/json"` it is made JSON here. A function that calls this one gets an equal
    `Response`.
    """

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        body: Any = None,
        status: int = 200,
        headers: Optional[Mapping[str, str]] = None,
        content_type: Optional[str] = None,
    ) -> None:
        self.body = body
        self.status = status
        self.headers = dict(headers or {})
        self.content_type = content_type

    def __repr__(self) -> str:
        return f"Response({self.body!r}, status={self.status})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Response):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in Response.__slots__)

    __hash__ = None  # type: ignore[assignment]


def encode_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """The payload of a call. `TypeError` names what can't be sent, and where it is."""
    if not args and not kwargs:
        return EMPTY_ARGUMENTS
    try:
        return _dumps([args, kwargs], canonical=True, default=_default)
    except Exception as error:
        for place, value in [*enumerate(args, 1), *kwargs.items()]:
            name = f"argument {place}" if isinstance(place, int) else f"argument {place!r}"
            _refuse(value, name)
        raise TypeError(f"the arguments can't be encoded: {error}") from error


def encode(value: Any, what: str = "result") -> bytes:
    """CBOR. `TypeError` names what can't be encoded, and where in `what` it is."""
    try:
        return _dumps(value, default=_default)
    except Exception as error:
        _refuse(value, what)
        raise TypeError(f"the {what} can't be encoded: {error}") from error


def encode_response(response: Response) -> tuple[bytes, str]:
    """The payload and content type of a `Response`."""
    body, content_type = response.body, response.content_type
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), content_type or BYTES
    if isinstance(body, str):
        return body.encode(), content_type or TEXT
    if content_type is None or content_type == "application/cbor":
        return encode(body), CBOR
    if content_type.partition(";")[0].strip() == "application/json":
        return json.dumps(body).encode(), content_type
    raise TypeError(f"a body of {content_type} must be bytes or str, not {type(body).__name__}")


def decode(payload: bytes, content_type: str = CBOR) -> Any:
    """The value of a payload: by its content type a CBOR value, JSON, text, or the bytes."""
    if content_type == CBOR:
        return _loads(payload) if payload else None
    kind = content_type.partition(";")[0].strip()
    if kind == "application/cbor":
        return _loads(payload)
    if kind == "application/json":
        return json.loads(payload)
    if kind.startswith("text/"):
        return payload.decode("utf-8", "replace")
    return payload


def _convert(value: Any) -> Any:
    """What stands for a value that CBOR does not know; `TypeError` if nothing does."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, datetime.time):
        return value.isoformat()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, memoryview):
        return bytes(value)
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)


def _default(encoder: Any, value: Any) -> None:
    encoder.encode(_convert(value))


def _refuse(value: Any, where: str, depth: int = 0) -> None:
    """Raise a `TypeError` for the first thing inside `value` that can't be encoded; return if there is none."""
    if depth > DEPTH_MAX:
        raise TypeError(f"{where[:60]}… is nested too deep, or contains itself")
    if isinstance(value, datetime.datetime) and value.tzinfo is None:
        raise TypeError(f"{where} is a datetime without a zone: give it one, e.g. datetime.now(timezone.utc)")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse(key, f"a key of {where}", depth + 1)
            _refuse(item, f"{where}[{key!r}]", depth + 1)
        return
    if isinstance(value, (list, tuple, set, frozenset)):
        for at, item in enumerate(value):
            _refuse(item, f"{where}[{at}]", depth + 1)
        return
    try:
        _dumps(value, default=_default)
    except Exception:
        try:
            inner = _convert(value)
        except Exception:
            kind = type(value)
            if kind in REFUSED:
                raise TypeError(f"{where} {REFUSED[kind]}") from None
            name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
            raise TypeError(f"{where} is of type {name}, which can't be sent") from None
        _refuse(inner, where, depth + 1)
