#!/usr/bin/env bash
# How new layers begin, for GeM and DOLG on the demo's own budget: PyTorch's draws or orthogonal ones, and the fused
# layer's half for local features as drawn or silent (0). SEEDS="0 1 2 3 4", about 80 seconds a run on two cores, 30 runs.
# What is there is not run again; a run that was stopped goes on.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=outputs/local_detail/initialisation

train() { # NAME OVERRIDES...
  local name=$1
  shift
  [ -e "$out/$name/card.json" ] || python -m src.train experiment=demo name="local_detail/initialisation/$name" resume=auto "$@"
}

[ -d data/demo_world ] || python -m src.prepare task=demo_world
for seed in ${SEEDS:-0 1 2 3 4}; do
  train "gem/$seed" seed="$seed" model=gem
  train "gem_orthogonal/$seed" seed="$seed" model=gem model.init=orthogonal
  train "dolg/$seed" seed="$seed"
  train "dolg_silent/$seed" seed="$seed" model.local_weight=0.0
  train "dolg_orthogonal/$seed" seed="$seed" model.init=orthogonal
  train "dolg_orthogonal_silent/$seed" seed="$seed" model.init=orthogonal model.local_weight=0.0
done
PYTHONPATH=src python experiments/local_detail/initialisation.py "$out"
