#!/usr/bin/env bash
# The first leaderboard: every model whose weights come from a package, and two that are trained here, on the demo world, a
# folder of photographs and a part of Revisited Paris. What stops goes on when it is started again.
# Usage: experiments/leaderboard/run.sh PROVENCE RPARIS6K_MINI WORLD96
# Only part of it: MODELS="gem local" BENCHMARKS="mini" BACKBONES=efficientnet_lite0 (the defaults are all there are).
# PLAN=true only says what is to be done. LAUNCHER="hydra/launcher=joblib hydra.launcher.n_jobs=2" runs cells side by side.
set -euo pipefail
photos=$(realpath "$1") mini=$(realpath "$2") world96=$(realpath "$3")
cd "$(dirname "$0")/../.."
name=leaderboard
out=outputs/$name
plan=${PLAN:-false}
read -ra launcher <<< "${LAUNCHER:-}"

# A line a model: `gem` are networks as they are, `local` do without one.
backbones=${BACKBONES:-efficientnet_lite0,efficientnet_lite1,efficientnet_lite2}
declare -A models=(
  [gem]="entry=gem,gem_whitened backbone=$backbones"
  [local]="entry=rootsift_asmk,rootsift_asmk_sp"
  [trained]="checkpoint=$out/gem/checkpoints/best.ckpt,$out/dolg/checkpoints/best.ckpt"
)
# A line a benchmark, with the other photographs that whitenings and codebooks are learned on.
learned=(benchmark@learn_on=folder learn_on.root="$photos")
declare -A benchmarks=(
  [demo]="benchmark=demo ${learned[*]}"
  [provence]="benchmark=folder benchmark.root=$photos benchmark@learn_on=folder learn_on.root=$world96"
  [mini]="benchmark=rparis6k benchmark.root=$mini benchmark.ground_truth=$mini/gnd_rparis6k-mini.pkl ${learned[*]}"
)

[ -d data/demo_world ] || python -m src.prepare task=demo_world
for model in ${MODELS:-gem local trained}; do
  if [ "$model" = trained ] && [ "$plan" = false ]; then
    for net in gem dolg; do
      choice=$([ $net = gem ] && echo model=gem_light || true)
      [ -f "$out/$net/card.json" ] || python -m src.train experiment=demo $choice name=$name/$net method="${net^^}, trained on the demo world" \
        baseline=null trainer.check_val_every_n_epoch=3 resume=auto
    done
  fi
  for benchmark in ${BENCHMARKS:-demo provence mini}; do
    # Paths have no blanks here: each word is an override.
    read -ra asked <<< "${models[$model]} ${benchmarks[$benchmark]}"
    python -m src.evaluate -m name="$name/$benchmark/$model" plan="$plan" max_side=512 'scales=[0.7071,1.0,1.4142]' pictures=0 \
      "${asked[@]}" "${launcher[@]}"
  done
done
[ "$plan" = true ] || python -m src.report leaderboard=true cards="'$out/*/*/*/card.json'" out="$out/page"
