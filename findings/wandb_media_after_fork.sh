#!/usr/bin/env bash
# W&B 0.31.0: after a fork of a process that has imported wandb ends, wandb.Image of an array fails in the other
# processes.
#
# Affected: programs that fork after `import wandb` (timm imports it too) if one of the processes exits normally: a
# training that goes into the background by a double fork, a server with forked workers, a test runner.
# Cause: importing wandb creates a folder for media, a tempfile.TemporaryDirectory. Each fork has the same folder and
# removes it when it exits. (Children of multiprocessing exit by os._exit and do not.)
# Expected: a process can log images whether or not another one has exited.
# Observed: FileNotFoundError at the next wandb.Image.
# Workaround: import wandb after the fork, or remove it from sys.modules in the fork and import it again.
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
  echo "observed as described"
else
  echo "the behaviour has changed" >&2
  exit 1
fi
