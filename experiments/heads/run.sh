#!/usr/bin/env bash
# Heads compared with DOLG on one frozen backbone (README.md): demo world, and a folder of photos. One process, one thread.
#   bash experiments/heads/run.sh PHOTOS
# A cell that is in OUT/results.json is not run again; the table is printed at the end.
set -euo pipefail
photos=$(realpath "$1")
cd "$(dirname "$0")/../.."
out=${OUT:-outputs/heads}
export OMP_NUM_THREADS=1 PYTHONPATH=src
[ -e data/demo_world/train_clean.csv ] || python -m src.prepare task=demo_world
python experiments/heads/compare.py "$out" "demo:160:data=demo" \
  "$(basename "$photos"):160:data=folder data.root=$photos max_side=240 colour=srgb"
python experiments/heads/table.py "$out/results.json"
