#!/usr/bin/env bash
# Three fusions and the global branch alone, three seeds, on the demo world at 320 x 240. For each seed, a GeM
# network is trained first. All four settings start from its backbone and pooling, with new layers and a new head, so
# that all have seen the same pictures. About 80 minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=outputs/fusion_ablation
# Three runs at a time, with one thread each.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

train() { # SEED NAME OVERRIDES...
  local seed=$1 name=$2
  shift 2
  python -m src.train experiment=fusion_ablation seed="$seed" name="fusion_ablation/$seed/$name" "$@"
}

seed() { # SEED: the common start, then the four settings
  local seed=$1
  train "$seed" start model=gem optim.optimizer.lr=0.05
  local common=(weights="$out/$seed/start/checkpoints/best.ckpt" 'weights_parts=[backbone,pooling]')
  train "$seed" global model=gem "${common[@]}"
  for fusion in orthogonal concat hadamard; do
    train "$seed" "$fusion" fusion="$fusion" "${common[@]}"
  done
}

python -m src.prepare task=demo_world root=data/demo_world_320 call.width=320 call.height=240
export -f train seed
export out
printf '%s\n' 0 1 2 | xargs -P 3 -I {} bash -euo pipefail -c 'seed {}'
PYTHONPATH=. python experiments/fusion_ablation/compare.py "$out" data/demo_world_320
