"""The command line, for debugging: `python -m bourse run FOLDER`, `python -m bourse attach FILE`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Optional

from . import _attach, _messages, _run
from ._errors import BourseError

_ABOUT = """\
Runs functions in this process, so that prints are seen and breakpoints work: breakpoint(), pdb, or an editor's.

  run     a daemon of one's own, with a whole folder's modules in this process, and state in memory
  attach  one module of a daemon that runs already

Saved files are loaded again between two calls. Calls that run here have no time limit. docs/debugging.md tells more."""

_RUN = """\
The daemon is the program `bourse`: what BOURSE_BINARY names, else the one on the PATH. Flags after -- are its own.

Examples:
  python -m bourse run functions
  python -m bourse run functions -- --http 127.0.0.1:0 --store sqlite"""

_ATTACH = """\
The daemon is the one that serves the file's folder, or this one; --data or --url name another.

Examples:
  python -m bourse attach functions/shop.py
  python -m bourse attach shop.py --url tcp://127.0.0.1:7072 --token-file functions/.bourse/token"""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, flags = given, []
    if "--" in given:
        own, flags = given[: given.index("--")], given[given.index("--") + 1 :]
    parser = _parser()
    options, unknown = parser.parse_known_args(own)
    if unknown:
        hint = f"; the daemon's own flags go after --: run {options.folder} -- {' '.join(unknown)}"
        parser.error(f"unknown: {' '.join(unknown)}{hint if options.command == 'run' and not flags else ''}")
    try:
        if options.command == "run":
            return _run.run(options.folder, flags)
        return _attach.attach(options.file, options.data, options.url, options.token_file)
    except BourseError as error:
        hint = f"\n  hint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"bourse: {error.message}{hint}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bourse", description=_ABOUT, formatter_class=raw)
    parser.add_argument("--version", action="version", version=_messages.AGENT)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="serve a folder from this process", epilog=_RUN, formatter_class=raw, usage="%(prog)s FOLDER [-- FLAGS]"
    )
    run.add_argument("folder", help="the folder of functions")
    attach = commands.add_parser(
        "attach", help="serve one module of a running daemon from this process", epilog=_ATTACH, formatter_class=raw
    )
    attach.add_argument("file", help="the module's file, or its folder if it is a package")
    where = attach.add_mutually_exclusive_group()
    where.add_argument("--data", metavar="DIR", help="the daemon's data folder, or the folder it serves [env: BOURSE_DATA]")
    where.add_argument("--url", metavar="URL", help="the daemon's endpoint for workers, ipc://… or tcp://…")
    attach.add_argument("--token-file", metavar="FILE", help="with --url: the file `token` of the daemon's data folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
