#!/usr/bin/env bash
# The same table on ROxford5k and RParis6k (and with MILLION=1 with the million distractors). NOT RUN HERE: it wants the
# photographs (python -m src.prepare task=roxford5k, task=rparis6k, task=revisitop1m) and three networks that were trained
# on GLDv2-clean (experiment=gem_r50, delg_r50, dolg_r50), whose checkpoints it takes.
# Usage: experiments/paper_table/real.sh GEM.ckpt DELG.ckpt DOLG.ckpt
set -euo pipefail
cd "$(dirname "$0")/../.."
out=outputs/paper_table_real
suffix=${MILLION:+_1m}
gem=$1 delg=$2 dolg=$3
for set in roxford5k rparis6k; do
  # Codebooks are learned on the other city.
  other=$([ "$set" = roxford5k ] && echo rparis6k || echo roxford5k)
  evaluate() { # NAME METHOD OPTIONS...
    python -m src.evaluate name="paper_table_real/$set$suffix/$1" method="'$2'" benchmark="$set$suffix" "${@:3}"
  }
  learned=(aggregate=asmk aggregate.words=65536 benchmark@learn_on="$other")
  # Local features at DELG's image size and scales (released R50 configuration).
  delg_size=(max_side=1024 'scales=[0.7071,1.0,1.4142]')
  evaluate a1_rootsift "(A) RootSIFT-ASMK" features=rootsift "${learned[@]}" max_side=1024
  evaluate a2_rootsift_sp "(A) RootSIFT-ASMK + SP" features=rootsift "${learned[@]}" max_side=1024 rerank=spatial
  evaluate a3_delg "(A) DELG-ASMK" checkpoint="$delg" "${learned[@]}" max_side=1024
  evaluate a4_delg_sp "(A) DELG-ASMK + SP" checkpoint="$delg" "${learned[@]}" max_side=1024 rerank=spatial
  evaluate b1_untrained "(B) GeM, untrained" model=imagenet_gem backbone=r50
  evaluate b2_gem "(B) GeM" checkpoint="$gem"
  evaluate b3_delg "(B) DELG, global" checkpoint="$delg" "${delg_size[@]}"
  evaluate c1_delg_sp "(C) DELG + SP" checkpoint="$delg" "${delg_size[@]}" rerank=spatial
  evaluate c2_delg_sp_oracle "(C) DELG + SP, oracle" checkpoint="$delg" "${delg_size[@]}" rerank=spatial oracle=true
  evaluate d1_dolg "DOLG" checkpoint="$dolg"
  evaluate d2_dolg_sp "DOLG + SP" checkpoint="$dolg" rerank=spatial
done
python -m src.report cards="$out/*/*/card.json" out="$out" published=true
