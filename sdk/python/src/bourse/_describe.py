"""What a function looks like from outside: parameters, types, defaults, documentation.

The node uses it to check and convert arguments that come as JSON or as text on a command line, and to describe
the API. So a hint that says nothing certain becomes `any`; describing never fails.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import json
import types
import typing
from typing import Any, Callable, Union

from . import _messages as messages

_PLAIN = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    bytes: "bytes",
    bytearray: "bytes",
    list: "list",
    tuple: "list",
    set: "list",
    frozenset: "list",
    dict: "dict",
    type(None): "none",
}
_LISTS = (collections.abc.Sequence, collections.abc.Set, collections.abc.Iterable, collections.abc.Collection)
_UNIONS = (Union, getattr(__import__("types"), "UnionType", Union))
_KINDS = {
    inspect.Parameter.POSITIONAL_OR_KEYWORD: 0,
    inspect.Parameter.POSITIONAL_ONLY: 1,
    inspect.Parameter.KEYWORD_ONLY: 2,
    inspect.Parameter.VAR_POSITIONAL: 3,
    inspect.Parameter.VAR_KEYWORD: 4,
}
DEFAULT_MAX = 4096  # characters of a default's JSON; longer ones are left out


def describe(name: str, plain: Callable[..., Any]) -> Any:
    """The `Function` message of a plain function."""
    described = messages.Function(name=name, doc=paragraph(plain.__doc__))
    try:
        signature = inspect.signature(plain)
    except (ValueError, TypeError):
        return described
    hints = _hints(plain)
    described.returns = type_name(hints["return"]) if "return" in hints else "any"
    for parameter in signature.parameters.values():
        variadic = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        default = parameter.default
        described.parameters.add(
            name=parameter.name,
            type=type_name(hints[parameter.name]) if parameter.name in hints else "any",
            required=default is inspect.Parameter.empty and not variadic,
            default_json="" if default is inspect.Parameter.empty else _json(default),
            kind=_KINDS[parameter.kind],
        )
    return described


def type_name(hint: Any) -> str:
    """One of the protocol's type names: "int", "str?", "any", …"""
    if hint is None or hint is type(None):
        return "none"
    origin = typing.get_origin(hint)
    if origin is getattr(typing, "Annotated", None) or hasattr(hint, "__metadata__"):
        return type_name(hint.__origin__)
    if origin in _UNIONS:
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        names = {type_name(member) for member in members}
        name = names.pop() if len(names) == 1 else "any"
        optional = len(members) < len(typing.get_args(hint))
        return f"{name}?" if optional and name != "any" and not name.endswith("?") else name
    if origin is typing.Literal:
        literals = typing.get_args(hint)
        name = _common([literal for literal in literals if literal is not None])
        return f"{name}?" if None in literals and name != "any" else name
    if isinstance(hint, typing.TypeVar):
        return "any" if hint.__bound__ is None else type_name(hint.__bound__)
    if hasattr(hint, "__supertype__"):  # a `NewType`
        return type_name(hint.__supertype__)
    kind = origin or hint
    if kind in _PLAIN:
        return _PLAIN[kind]
    if not isinstance(kind, type):
        return "any"
    if issubclass(kind, enum.Enum):
        return _common([member.value for member in kind])
    if issubclass(kind, collections.abc.Mapping) or dataclasses.is_dataclass(kind):
        return "dict"
    if kind in _LISTS or (issubclass(kind, collections.abc.Sequence) and not issubclass(kind, (str, bytes))):
        return "list"
    return "any"


def paragraph(doc: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    if not isinstance(doc, str):
        return ""
    return " ".join(inspect.cleandoc(doc).split("\n\n")[0].split())


def _hints(plain: Callable[..., Any]) -> dict[str, Any]:
    """The annotations; without those with names that only a type checker, or a later Python, can see."""
    try:
        return typing.get_type_hints(plain)
    except Exception:
        pass
    found: dict[str, Any] = {}
    scope = getattr(inspect.unwrap(plain), "__globals__", {})
    for name, hint in getattr(plain, "__annotations__", {}).items():
        try:
            found.update(typing.get_type_hints(types.SimpleNamespace(__annotations__={name: hint}), scope))
        except Exception:
            pass
    return found


def _common(members: Any) -> str:
    names = {_PLAIN.get(type(member), "any") for member in members}
    return names.pop() if len(names) == 1 else "any"


def _json(default: Any) -> str:
    try:
        text = json.dumps(default.value if isinstance(default, enum.Enum) else default, allow_nan=False)
    except (TypeError, ValueError):
        return ""
    return text if len(text) <= DEFAULT_MAX else ""
