"""From a path to functions: load a module of the served folder, and find what it offers.

A module is a file, `foo.py`, or a package, `foo/`. Its functions are those that the file itself defines with a public
name; if any of them is decorated, only the decorated ones. `on_start` and `on_stop` are hooks. Files beside it
can be imported. A changed file gets a new process, but for `_modules`, which lets Python `forget` what it has imported.
"""

from __future__ import annotations

import ast
import gc
import importlib.machinery
import importlib.util
import inspect
import os
import re
import sys
import threading
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable, Optional

from . import _describe, _tracebacks
from . import _functions as functions
from . import _messages as messages
from ._errors import failure_of

_folders: set[str] = set()  # where modules of the served folder are looked for
_SEMVER = re.compile(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?((?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?)")


@dataclass
class Loaded:
    """A module that was loaded."""

    name: str
    functions: dict[str, Callable[..., Any]]
    description: Any  # the `Module` message
    files: list[str]  # what was imported from the folder, relative to it
    on_start: list[Callable[[], Any]]
    on_stop: list[Callable[[], Any]]


class LoadError(Exception):
    """The path, or what the module offers, can't be served."""


def load(path: str, root: str, for_good: bool = True) -> Loaded:
    """Import the module at `path`. Whatever the module raises while it is imported comes out as it is.

    `for_good`: this process will never load another revision of it.
    """
    root, path = os.path.abspath(root), os.path.abspath(path)
    if os.path.basename(path) == "__init__.py":
        path = os.path.dirname(path)
    name = os.path.basename(path)
    file = path
    if os.path.isdir(path):
        file = os.path.join(path, "__init__.py")
        if not os.path.isfile(file):
            raise LoadError(f"{path} is not a Python package: it has no __init__.py")
    else:
        name = name[:-3] if name.endswith(".py") else name
        if not os.path.isfile(file):
            raise LoadError(f"there is no file {path}")
    if not name.isidentifier():
        raise LoadError(f"{name!r} can't be a module's name: use letters, digits and _")
    _compile_anew(root)
    _search_first(root, os.path.dirname(path))
    loaded = _offer(name, _already(name, file) or _execute(name, file), root)
    if for_good:
        if any(map(inspect.iscoroutinefunction, (*loaded.functions.values(), *loaded.on_start, *loaded.on_stop))):
            importlib.import_module("asyncio")  # slow, so once before instances are forked, and not where nothing needs it
        gc.collect()
        gc.freeze()  # what was loaded stays: keep it out of collections, and its pages shared after a fork
    return loaded


def forget(root: str) -> dict[str, types.ModuleType]:
    """Make Python import anew whatever it has imported from the folder. Returns what that was."""
    inside = os.path.abspath(root)
    found = {name: module for name, module in list(sys.modules.items()) if _inside(inside, module)}
    forgotten = {name: module for name, module in found.items() if not _tracebacks.is_ours(str(module.__file__))}
    forgotten.pop("__main__", None)
    for name in forgotten:
        del sys.modules[name]
    importlib.invalidate_caches()
    return forgotten


def failure(error: BaseException) -> Any:
    """The `Failure` of a module that does not load; the traceback is the module's own."""
    failed = failure_of(error)
    failed.code = "module_failed"
    failed.hint = failed.hint or hint(error)
    if isinstance(error, LoadError):
        failed.type = ""
    else:
        failed.message = f"{failed.type}: {failed.message}"
        failed.traceback = _tracebacks.of(error, ("<frozen importlib",))
    return failed


def hint(error: BaseException) -> str:
    """What to do about a package that is missing; empty for anything else, and for what the folder or Python should have."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    name = error.name.partition(".")[0]
    if name in getattr(sys, "stdlib_module_names", sys.builtin_module_names) or name in sys.modules:
        return ""
    for folder in _folders:
        if os.path.isdir(os.path.join(folder, name)) or os.path.isfile(os.path.join(folder, f"{name}.py")):
            return ""
    return f"If {name} is a package, add it to requirements.txt in the served folder, by the name that pip knows it by."


def threads() -> str:
    """What keeps this process from being forked: threads besides the main one. Empty if there are none."""
    found = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    try:
        tasks = len(os.listdir("/proc/self/task"))
    except OSError:
        tasks = 1 + len(found)
    if tasks <= 1 and not found:
        return ""
    native = tasks - 1 - len(found)
    if native > 0:
        found.append(f"{native} not made by Python")
    return f"importing it started threads: {', '.join(found)}"


class _Anew(importlib.machinery.SourceFileLoader):
    """Compiles a file whenever it is loaded.

    Python's cache of compiled files goes by size and whole seconds, so two quick saves could be the same to it.
    """

    def path_stats(self, path: Any) -> Any:
        raise OSError("not to be looked up in the cache")


def _compile_anew(root: str) -> None:
    """Keep what is imported from the served folder (packages of an environment inside it apart) out of the cache."""
    inside = os.path.join(root, "")
    machinery = importlib.machinery
    details = (
        (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
        (_Anew, machinery.SOURCE_SUFFIXES),
        (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
    )

    def hook(path: str) -> Any:
        folder = os.path.join(os.path.abspath(path), "")
        if not folder.startswith(inside) or not os.path.isdir(path) or "site-packages" in folder.split(os.sep):
            raise ImportError("not in the served folder", path=path)
        return machinery.FileFinder(path, *details)

    sys.path_hooks.insert(0, hook)
    for path in [path for path in sys.path_importer_cache if os.path.join(path, "").startswith(inside)]:
        del sys.path_importer_cache[path]


def _search_first(*folders: str) -> None:
    _folders.update(folders)
    for folder in reversed(folders):
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path.insert(0, folder)


def _already(name: str, file: str) -> Optional[types.ModuleType]:
    """The module, if another one that was loaded into this process has imported it."""
    python = sys.modules.get(name)
    there = getattr(python, "__file__", None)
    return python if isinstance(there, str) and os.path.abspath(there) == file else None


def _execute(name: str, file: str) -> types.ModuleType:
    # A module may be called like one that Python has loaded already (`email.py`): then that one keeps its place.
    python_name = f"{name}__served" if name in sys.modules else name
    functions.served[python_name] = name
    folder = [os.path.dirname(file)] if os.path.basename(file) == "__init__.py" else None
    loader = _Anew(python_name, file)
    spec = importlib.util.spec_from_file_location(
        python_name, file, loader=loader, submodule_search_locations=folder
    )
    if spec is None or spec.loader is None:
        raise LoadError(f"{file} is not a Python file")
    python = importlib.util.module_from_spec(spec)
    sys.modules[python_name] = python
    try:
        spec.loader.exec_module(python)
    except BaseException:
        sys.modules.pop(python_name, None)
        raise
    return python


def _offer(name: str, python: types.ModuleType, root: str) -> Loaded:
    description = messages.Module(name=name, version=_version(python))
    loaded = Loaded(name, {}, description, sorted(_files(root)), [], [])
    own = [(public, value) for public, value in vars(python).items() if _defined_in(python, value)]
    decorated = any(isinstance(value, functions.Function) for _, value in own)
    _refuse_repeated(name, python, {
        public
        for public, value in own
        if isinstance(value, functions.Function) or not (decorated or public.startswith("_"))
    })
    for public, value in own:
        hook = getattr(value, "__bourse_hook__", None) or (public if public in ("on_start", "on_stop") else None)
        if hook:
            hooks = loaded.on_start if hook == "on_start" else loaded.on_stop
            if value not in hooks:
                hooks.append(value)
        elif isinstance(value, functions.Function):
            _add(loaded, value.name, value.plain, value)
        elif not decorated and not public.startswith("_"):
            _add(loaded, public, value, None)
    return loaded  # perhaps with no functions: a file that only others import


def _add(loaded: Loaded, name: str, plain: Callable[..., Any], decorated: Optional[functions.Function[Any, Any, Any]]) -> None:
    if loaded.functions.get(name) is plain:
        return
    if name in loaded.functions:
        lines = _lines(loaded.functions[name], plain)
        raise LoadError(f"{loaded.name} offers two functions with the name {name}{lines}")
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise LoadError(f"{loaded.name}.{name} is a generator: streams are not supported in this version")
    described = _describe.describe(name, plain)
    if decorated is not None:
        described.http.extend(decorated.http)
        for option, words in decorated.words.items():
            described.options[option] = words
        if decorated.retry is not None:
            described.options["retry"] = decorated.retry.to_json()
    loaded.functions[name] = plain
    loaded.description.functions.append(described)


def _refuse_repeated(name: str, python: types.ModuleType, offered: set[str]) -> None:
    """Of two definitions with one name Python keeps the last, and forgets the other: so look at the source.

    Only at definitions that surely happen: not at those in an `if` or a `try`. Where decorators of others make one
    function of several (`@overload`, `@f.register`), or a name is taken away in between, it is meant that way.
    """
    try:
        with open(str(python.__file__), "rb") as file:
            statements = ast.parse(file.read()).body
    except (OSError, SyntaxError, ValueError):
        return
    found: dict[str, tuple[int, bool]] = {}
    for statement in statements:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if not all(map(_is_ours, statement.decorator_list)):
                continue
            is_offered = statement.name in offered or bool(statement.decorator_list)
            before, was_offered = found.get(statement.name, (0, False))
            if before and (is_offered or was_offered):
                raise LoadError(
                    f"{name} defines {statement.name} twice, in line {before} and in line {statement.lineno}: "
                    "the second would silently take the place of the first"
                )
            found[statement.name] = statement.lineno, is_offered
        elif isinstance(statement, (ast.Delete, ast.Assign)):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    found.pop(target.id, None)


def _is_ours(decorator: ast.expr) -> bool:
    """Whether a decorator is `@function`, `@bourse.function(…)`, or one of the hooks, by its looks."""
    if isinstance(decorator, ast.Call):
        decorator = decorator.func
    last = decorator.attr if isinstance(decorator, ast.Attribute) else getattr(decorator, "id", "")
    return last in ("function", "on_start", "on_stop")


def _lines(*plain: Callable[..., Any]) -> str:
    codes = [getattr(inspect.unwrap(one), "__code__", None) for one in plain]
    return ": in line " + " and in line ".join(str(code.co_firstlineno) for code in codes if code) if all(codes) else ""


def _defined_in(python: types.ModuleType, value: Any) -> bool:
    if isinstance(value, functions.Function):
        value = value.plain
    elif not inspect.isfunction(value):
        return False
    return bool(getattr(value, "__module__", None) == python.__name__)


def _version(python: types.ModuleType) -> str:
    version = getattr(python, "__version__", None)
    if version is None:
        return ""
    match = _SEMVER.fullmatch(version) if isinstance(version, str) else None
    if not match:
        raise LoadError(f"__version__ is {version!r}; it must be a semantic version such as '1.2.0'")
    return f"{int(match[1])}.{int(match[2] or 0)}.{int(match[3] or 0)}{match[4]}"


def _files(root: str) -> Iterator[str]:
    for module in list(sys.modules.values()):
        relative = _inside(root, module)
        if relative:
            yield relative


def _inside(root: str, module: types.ModuleType) -> str:
    """The file of a module that was imported from the folder, relative to it; else empty."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not os.path.abspath(file).startswith(os.path.join(root, "")):
        return ""
    relative = os.path.relpath(file, root)
    # An environment inside the folder belongs to the machine, not to the module.
    outside = any(part == "site-packages" or part.startswith(".") for part in relative.split(os.sep))
    return "" if outside else relative
