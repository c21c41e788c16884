#!/usr/bin/env bash
# W&B 0.31.0: once a fork of a process that has imported wandb ends, wandb.Image of an array fails in the others.
#
# Who it hurts: whoever forks after `import wandb` (timm imports it by itself) and lets one of the two end as a program
# ends: a training that goes into the background by a double fork, a server whose workers are forked, a test runner.
# Why: wandb makes its folder for media, a tempfile.TemporaryDirectory, when it is imported; each fork has the same
# folder and removes it at its exit. (multiprocessing's own children leave by os._exit and do not.)
# Expected: a process logs images whether or not another one has ended. Seen: FileNotFoundError at the next wandb.Image.
# What helps: import wandb after the fork, or drop it from sys.modules in the fork and import it again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check wandb==0.31.0 numpy==2.4.6 pillow==13.0.0

cat > program.py << 'EOF'
import os
import sys

import numpy as np
import wandb


def image() -> str:
    try:
        wandb.Image(np.zeros((4, 4, 3), np.uint8))
    except FileNotFoundError:
        return "FileNotFoundError"
    return "an image"


before = image()
fork = os.fork()
if fork == 0:
    sys.exit(0)
os.waitpid(fork, 0)
print(f"wandb {wandb.__version__}: before the fork {before}, after it has ended {image()}")
EOF

said=$(venv/bin/python program.py)
echo "$said"
echo "expected: an image both times"
if [ "$said" = "wandb 0.31.0: before the fork an image, after it has ended FileNotFoundError" ]; then
  echo "seen as described"
else
  echo "this has changed" >&2
  exit 1
fi
