"""The command line: `dolglab COMMAND ...`, the same as `python -m dolglab COMMAND ...`."""

from __future__ import annotations

import difflib
import io
import runpy
import sys

from dolglab.errors import quiet_broken_pipe
from dolglab.version import __version__

COMMANDS = {
    "train": "train a descriptor network, or a sweep of trainings (--multirun)",
    "evaluate": "evaluate a network or existing descriptors on a benchmark, or several on several (--multirun)",
    "prepare": "download, verify, index and pack data sets; draw the demo world",
    "report": "compare runs by their result cards: table, page, charts, leaderboard; verify a card",
    "tune": "search for settings with Optuna",
    "embed": "describe photos and store the descriptors in a library",
    "search": "search a library by photo",
    "serve": "serve a library in the browser and over HTTP",
    "export": "write a model as a folder to share, also as ONNX or to the Hugging Face hub",
    "library": "manage a library: info, remove, duplicates, label, map, adapt, merge, exif",
}
EXAMPLES = (
    "dolglab embed /path/to/photos --library library    describe your photos; needs no training",
    "dolglab serve --library library                    search them in the browser",
    "dolglab train experiment=photos data.root=/path/to/photos name=mine",
)


@quiet_broken_pipe()
def main() -> None:
    """Run the command that the first argument names; `--help` lists them."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        print("usage: dolglab COMMAND ...\n")
        print("\n".join(f"  {command:<10}{what}" for command, what in COMMANDS.items()))
        print("\n`dolglab COMMAND --help` explains a command's options, with examples. To get started:\n")
        print("\n".join(f"  {example}" for example in EXAMPLES))
    elif name == "--version":
        print(__version__)
    elif name in COMMANDS:
        del sys.argv[1]
        run(name)
    else:
        nearest = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "`dolglab --help` lists them"
        print(f"error: there is no command {name!r}: {hint}", file=sys.stderr)
        raise SystemExit(2)


def run(command: str) -> None:
    """Run a command with the arguments of `sys.argv`, as `python -m dolglab.commands.COMMAND` does.

    Lightning starts the other processes of a run from the name of the module `__main__` and from `sys.argv`, so both
    must name this command without its dispatcher.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names may be any bytes, and are printed unchanged; with the locale C, Python does this by default.
        sys.stdout.reconfigure(errors="surrogateescape")
    with quiet_broken_pipe():
        runpy.run_module(f"dolglab.commands.{command}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
