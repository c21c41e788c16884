#!/usr/bin/env bash
# The same table on ROxford5k and RParis6k (and with MILLION=1 with the million distractors). NOT RUN HERE: it needs the
# photographs (python -m src.prepare task=roxford5k, task=rparis6k, task=revisitop1m) and three networks that were trained
# on GLDv2-clean (experiment=gem_r50, delg_r50, dolg_r50), given by their checkpoints.
# Usage: experiments/paper_table/real.sh GEM.ckpt DELG.ckpt DOLG.ckpt
set -euo pipefail
gem=$(realpath "$1") delg_checkpoint=$(realpath "$2") dolg=$(realpath "$3")
cd "$(dirname "$0")/../.."
source experiments/paper_table/families.sh
trained=([gem]=$gem [delg]=$delg_checkpoint [dolg]=$dolg)
backbone=r50
# DELG's own scales (its released R50 configuration); DOLG and GeM use the paper's five.
delg=('scales=[0.7071,1.0,1.4142]')
spatial=(rerank=spatial) network=(features=network) verified=(rerank=spatial) nearer=()
for set in roxford5k rparis6k; do
  name=paper_table_real/$set${MILLION:+_1m}
  out=outputs/$name
  tested=(benchmark="$set${MILLION:+_1m}")
  # Codebooks are learned on the other city.
  learned=(aggregate.words=65536 benchmark@learn_on="$([ "$set" = roxford5k ] && echo rparis6k || echo roxford5k)")
  families
  evaluate c3_delg_sp_oracle "(C) DELG + SP, oracle" checkpoint="${trained[delg]}" "${delg[@]}" \
    "${network[@]}" "${verified[@]}" oracle=true
done
out=outputs/paper_table_real
report "$out/*/[a-d]*/card.json"
