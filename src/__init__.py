"""This checkout's commands: `python -m src.train` is `dolglab train`, and it and what it starts run what lies here."""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))

if sys.path[0] != _HERE:
    sys.path.insert(0, _HERE)
if os.environ.get("PYTHONPATH", "").split(os.pathsep)[0] != _HERE:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_HERE, os.environ.get("PYTHONPATH")]))

from dolglab import load as load  # noqa: E402
