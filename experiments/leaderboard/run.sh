#!/usr/bin/env bash
# The first leaderboard: all models whose weights are in a package, and two that are trained here, on the demo world, a
# folder of photographs and a part of Revisited Paris. The same command resumes it.
# Usage: experiments/leaderboard/run.sh PROVENCE RPARIS6K_MINI WORLD96
# Only a part: MODELS="lite0 local" BENCHMARKS=mini (the defaults are all). SIDE=512 uses larger images for all models;
# give it another NAME.
# PLAN=true only prints the plan. LAUNCHER="hydra/launcher=joblib hydra.launcher.n_jobs=2" runs cells in parallel.
set -euo pipefail
photos=$(realpath "$1") mini=$(realpath "$2") world96=$(realpath "$3")
cd "$(dirname "$0")/../.."
name=${NAME:-leaderboard}
out=outputs/$name
plan=${PLAN:-false}
launcher=()
# A plan needs a single process.
[ "$plan" = true ] || read -ra launcher <<< "${LAUNCHER:-}"

# One line per model: networks as released, local features without a network, and networks trained here.
declare -A models=(
  [lite0]="entry=gem,gem_plus,gem_whitened backbone=efficientnet_lite0"
  [lite1]="entry=gem,gem_plus,gem_whitened backbone=efficientnet_lite1"
  [lite2]="entry=gem,gem_plus,gem_whitened backbone=efficientnet_lite2"
  [local]="entry=rootsift_asmk,xfeat_asmk 'aggregate.words=choice(1024)'"
  [verified]="entry=rootsift_asmk_sp,xfeat_asmk_sp 'aggregate.words=choice(1024)' 'rerank.depth=choice(20)'"
  [trained_gem]="checkpoint=$out/trained_gem/checkpoints/best.ckpt \"method='GeM, trained on the demo world'\""
  [trained_dolg]="checkpoint=$out/trained_dolg/checkpoints/best.ckpt \"method='DOLG, trained on the demo world'\""
)
# One line per benchmark, with the other photographs on which whitenings and codebooks are learned.
learned=(benchmark@learn_on=folder learn_on.root="$photos")
declare -A benchmarks=(
  [demo]="benchmark=demo ${learned[*]}"
  [provence]="benchmark=folder benchmark.root=$photos benchmark@learn_on=folder learn_on.root=$world96"
  [mini]="benchmark=rparis6k benchmark.root=$mini benchmark.ground_truth=$mini/gnd_rparis6k-mini.pkl ${learned[*]}"
)

[ -d data/demo_world ] || python -m src.prepare task=demo_world
train() { # NAME OPTIONS...
  [ "$plan" = true ] || [ -f "$out/$1/card.json" ] ||
    python -m src.train experiment=demo name="$name/$1" trainer.check_val_every_n_epoch=3 resume=auto "${@:2}"
}
for model in ${MODELS:-lite0 local verified lite1 lite2 trained_gem trained_dolg}; do
  case $model in
    trained_gem) train $model model=gem_light ;;
    trained_dolg) train $model ;;
  esac
  for benchmark in ${BENCHMARKS:-provence demo mini}; do
    eval "asked=(${models[$model]} ${benchmarks[$benchmark]})"
    python -m src.evaluate -m name="$name/$benchmark/$model" plan="$plan" max_side="${SIDE:-256}" 'scales=[1.0]' pictures=0 \
      "${asked[@]}" "${launcher[@]}"
  done
done
# The page has copies of cards, which must not be counted when it is made again.
shopt -s nullglob
cards=("$out"/{provence,demo,mini}/*/*/card.json)
[ "$plan" = true ] || python -m src.report leaderboard=true cards="[$(IFS=,; echo "${cards[*]@Q}")]" out="$out/page"
