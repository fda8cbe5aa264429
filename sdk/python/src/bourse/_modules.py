"""The modules that this process serves for a developer: found as the daemon finds them, and loaded again when saved.

Loading again is simple: when any Python file of the folder has changed, everything that was imported from it is
forgotten, and all modules are loaded anew. One that does not load is reported, and goes on as it was.
"""

from __future__ import annotations

import inspect
import keyword
import os
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any, Callable, Optional

from . import _context, _discover, _loops
from ._errors import BourseError

FILES_MAX = 5000  # that are looked at for changes
DEPTH_MAX = 8

_COMMAND = re.compile(r"^\s*command\s*=", re.MULTILINE)


class Served:
    """A module: what was loaded last, and what its functions keep in `bourse.instance`."""

    def __init__(self, loaded: _discover.Loaded) -> None:
        self.loaded = loaded
        self.name = loaded.name
        self.kept: dict[str, Any] = {}
        self.before: Optional[_discover.Loaded] = None

    def start(self) -> None:
        """Run `on_start`."""
        self._run_hooks(self.loaded.on_start)

    def stop(self) -> None:
        """Run `on_stop`; what it raises is shown, and no more."""
        try:
            self._run_hooks(self.loaded.on_stop)
        except Exception:
            sys.stderr.write(f"bourse: on_stop of {self.name} failed\n{traceback.format_exc()}")

    def enter(self, outer: Optional[Served]) -> None:
        """From now on, `bourse.instance` is this module's."""
        if outer is not self:
            _swap(outer.kept if outer else {}, self.kept)

    def exit(self, outer: Optional[Served]) -> None:
        """And now the other's again."""
        if outer is not self:
            _swap(self.kept, outer.kept if outer else {})

    def _run_hooks(self, hooks: list[Callable[[], Any]]) -> None:
        self.enter(None)
        try:
            for hook in hooks:
                if inspect.iscoroutinefunction(hook):
                    with _loops.one() as loop:
                        loop.run_until_complete(hook())
                else:
                    hook()
        finally:
            self.exit(None)


class Modules:
    """All of them. `only`: the one file that is served, of the folder `root`."""

    def __init__(self, root: str, only: Optional[str] = None) -> None:
        self.root = os.path.abspath(root)
        self.only = only and os.path.abspath(only)
        self.served: dict[str, Served] = {}
        self.helpers: list[str] = []  # files that offer no function
        self.loaded_again: list[str] = []
        sys.dont_write_bytecode = True  # a file saved twice in a second would be taken for the same
        self._seen = self._look()
        self.broken = self._load()

    def changed(self) -> bool:
        """Whether a file was saved, added or removed since this was last asked."""
        before, self._seen = self._seen, self._look()
        return before != self._seen

    def reload(self) -> list[Served]:
        """Load everything anew. Returns what is served no more."""
        before = _discover.forget(self.root)
        old = dict(self.served)
        self.loaded_again.clear()
        self.broken = self._load()
        for name, module in before.items():
            sys.modules.setdefault(name, module)  # what still runs may import it
        gone = [old[name] for name in old if name not in self.served]
        for served in gone:
            served.stop()
        return gone

    def refused(self, served: Served, error: BourseError) -> None:
        """The node does not want what was loaded last."""
        served.stop()
        goes_on = ""
        if served.before is None:
            self.served.pop(served.name, None)
        else:
            goes_on = "; it goes on as it was"
            served.loaded, served.before = served.before, None
            served.start()
        if served.name in self.loaded_again:
            self.loaded_again.remove(served.name)
        hint = f" ({error.hint})" if error.hint else ""
        sys.stderr.write(f"bourse: {served.name} can't be served{goes_on}: {error.message}{hint}\n")

    def _load(self) -> list[str]:
        """Load all modules; those that fail stay as they are. The names of those that do."""
        found = [self.only] if self.only else list(paths(self.root))
        names, broken, self.helpers = set(), [], []
        for path in found:
            name = os.path.basename(path)
            name = name[:-3] if name.endswith(".py") else name
            try:
                loaded = _discover.load(path, self.root, for_good=False)
                if not loaded.functions:
                    self.helpers.append(name)
                    continue
                self._take(loaded)
                name = loaded.name
            except (Exception, SystemExit) as error:
                broken.append(name)
                self._report(name, error)
            names.add(name)
        for name in set(self.served) - names:
            del self.served[name]
        return broken

    def _take(self, loaded: _discover.Loaded) -> None:
        """A module was loaded: from now on its calls run on it."""
        old = self.served.get(loaded.name)
        new = Served(loaded)
        new.start()
        if old is None:
            self.served[loaded.name] = new
        else:
            old.stop()
            old.before, old.loaded, old.kept = old.loaded, loaded, new.kept
            self.loaded_again.append(loaded.name)

    def _report(self, name: str, error: BaseException) -> None:
        failure = _discover.failure(error)
        goes_on = "; it goes on as it was" if name in self.served else ""
        sys.stderr.write(f"bourse: {name} does not load{goes_on}: {failure.message}\n{failure.traceback}")
        if isinstance(error, ModuleNotFoundError):
            sys.stderr.write(f"bourse: here modules are imported by {sys.executable}: install what they need there\n")

    def _look(self) -> dict[str, tuple[int, int]]:
        seen: dict[str, tuple[int, int]] = {}
        for path in _python_files(self.root, DEPTH_MAX):
            if len(seen) >= FILES_MAX:
                break
            try:
                status = os.stat(path)
            except OSError:
                continue
            seen[path] = (status.st_mtime_ns, status.st_size)
        return seen


def paths(root: str) -> Iterator[str]:
    """The Python modules of a folder, as the daemon's scan finds them. Programs of `command` are the daemon's."""
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.name.startswith(("_", ".")) or _left_out(entry.path, entry.name):
            continue
        name, file = entry.name, entry.is_file()
        if file and not name.endswith(".py") or not file and not os.path.isfile(os.path.join(entry.path, "__init__.py")):
            continue
        name = name[:-3] if file else name
        if name.isidentifier() and not keyword.iskeyword(name) and not (not file and _is_program(entry.path)):
            yield entry.path


def _is_program(folder: str) -> bool:
    try:
        with open(os.path.join(folder, "bourse.toml"), encoding="utf-8") as settings:
            return bool(_COMMAND.search(settings.read()))
    except OSError:
        return False


def _left_out(path: str, name: str) -> bool:
    hidden = name.startswith(".") or name in ("__pycache__", "node_modules")
    return hidden or os.path.isfile(os.path.join(path, "pyvenv.cfg"))


def _python_files(folder: str, depth: int) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if _left_out(entry.path, entry.name):
            continue
        if entry.is_dir():
            if depth > 0:
                yield from _python_files(entry.path, depth - 1)
        elif entry.name.endswith(".py"):
            yield entry.path


def _swap(out: dict[str, Any], into: dict[str, Any]) -> None:
    """Keep what is in `bourse.instance` in `out`, and put `into` there."""
    live = _context.instance.__dict__
    out.clear()
    out.update(live)
    live.clear()
    live.update(into)
