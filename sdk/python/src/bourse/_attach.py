"""`python -m bourse attach`: one module of a running daemon runs in this process instead.

The daemon sends the module's calls here as long as this process is connected; afterwards its own revision serves again.
When the daemon restarts, the module is attached anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Optional

from ._connection import answers, daemon_file, find
from ._errors import NoNode
from ._host import Host, say
from ._modules import Modules

_START = "Start it (bourse up FOLDER), or run all of the folder in this process: python -m bourse run FOLDER"


def attach(file: str, data: Optional[str], url: Optional[str], token_file: Optional[str]) -> int:
    """Serve a file's functions from this process, until Ctrl-C. The exit code."""
    if not os.path.exists(file):
        raise NoNode(f"there is no file {file}", hint="Name a module of the served folder: FOLDER/NAME.py, or a package.")
    if os.path.isdir(file) and not os.path.isfile(os.path.join(file, "__init__.py")):
        hint = f"Name one of its files, or run all of them here: python -m bourse run {file}"
        raise NoNode(f"{file} is a folder, and no Python package: it has no __init__.py", hint=hint)
    about: dict[str, Any] = {}
    if url is not None:
        endpoint, secret = find(url, _token(url, token_file))
    else:
        described = _described(file, data)
        try:
            endpoint, secret = find(described.parent, None)
        except NoNode as error:
            raise NoNode(error.message, hint=_START) from None
        about = json.loads(described.read_text())
        if not answers(endpoint):
            raise NoNode(f"the daemon that {described} tells of is gone", hint=_START)
    modules = Modules(_root(file, about.get("folder")), file)
    if not modules.served:
        if modules.broken:
            raise NoNode(f"{file} is not attached", hint="Mend what is reported above.")
        raise NoNode(f"{file} offers no function", hint="Define one whose name does not begin with an underscore.")
    host = Host(endpoint, secret, modules)
    try:
        host.start()
        _tell(modules, about, endpoint)
        host.serve()
    except KeyboardInterrupt:
        pass
    finally:
        host.leave()
    return 0


def _described(file: str, data: Optional[str]) -> Path:
    """The daemon's own description: of the one that is named, or that serves the file, or this folder."""
    if data is None and "BOURSE_DATA" not in os.environ:
        for folder in Path(os.path.abspath(file)).parents:
            found = folder / ".bourse" / "daemon.json"
            if found.is_file():
                return found
    try:
        return daemon_file(data)
    except NoNode:
        reason = "there is no .bourse/daemon.json in its folder, in this one, or above them"
        raise NoNode(f"no daemon serves {file}: {reason}", hint=_START) from None


def _token(url: str, file: Optional[str]) -> bytes:
    if file is None:
        raise NoNode(f"a token is needed for {url}", hint="It stands in the daemon's data folder: --token-file DIR/token")
    try:
        return Path(file).read_bytes().strip()
    except OSError as error:
        raise NoNode(f"the token can't be read from {file}: {error.strerror}") from None


def _root(file: str, served: Optional[str]) -> str:
    """The folder that the file's imports are looked for in: the one that the daemon serves, if the file is there."""
    path = os.path.abspath(file)
    if served and os.path.commonpath([served, path]) == served:
        return served
    folder = os.path.dirname(path)
    return os.path.dirname(folder) if os.path.basename(path) == "__init__.py" else folder


def _tell(modules: Modules, about: dict[str, Any], endpoint: str) -> None:
    http = about.get("http", "")
    for served in modules.served.values():
        say(f"{served.name} runs in this process ({os.getpid()}), for {http or endpoint}")
        for function in served.loaded.description.functions:
            routes = list(function.http) or [f"POST /v1/call/{served.name}.{function.name}"]
            say(f"  {served.name}.{function.name}  {', '.join(routes)}")
    say("Ctrl-C ends it, and the daemon's own revision serves again")
