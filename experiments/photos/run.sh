#!/usr/bin/env bash
# Train on a folder of real photographs, one sub-folder per landmark; then evaluate the checkpoint on another set.
# Usage: experiments/photos/run.sh PHOTOS REVISITED_FOLDER GROUND_TRUTH
set -euo pipefail
cd "$(dirname "$0")/../.."
python -m src.train experiment=photos data.root="$1" name=photos
python -m src.evaluate checkpoint=outputs/photos/checkpoints/best.ckpt benchmark=rparis6k benchmark.root="$2" \
  benchmark.ground_truth="$3" max_side=512 'scales=[0.7071,1.0,1.4142]' name=photos_on_paris
python -m src.report 'cards=[outputs/photos/baseline,outputs/photos,outputs/photos_on_paris]' out=outputs/photos_all
