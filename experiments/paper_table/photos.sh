#!/usr/bin/env bash
# The paper's table on real photographs, one sub-folder per landmark: the networks are trained on the first half of the
# landmarks, and everything is tested on the others, which are not in training. Codebooks are learned on a third set,
# in the layout of RParis6k. Only the table is kept: the photographs are not ours.
# Usage: experiments/paper_table/photos.sh PHOTOS REVISITED_FOLDER GROUND_TRUTH
set -euo pipefail
photos=$(realpath "$1") other=$(realpath "$2") truth=$(realpath "$3")
cd "$(dirname "$0")/../.."
name=paper_table_photos
out=outputs/$name
here=experiments/paper_table
source "$here/families.sh"
rm -rf "$out"
mkdir -p "$out/photos/train" "$out/photos/other_landmarks"
number=0
for landmark in "$photos"/*/; do
  half=$([ $((2 * number)) -lt "$(ls "$photos" | wc -l)" ] && echo train || echo other_landmarks)
  ln -s "$landmark" "$out/photos/$half/"
  number=$((number + 1))
done

options=(data.root="$out/photos/train" baseline=null data.test_share=0.05)
train gem photos "${options[@]}" model=gem
train delg photos "${options[@]}" model=delg_small model.dim=512 auxiliary.attention=30 auxiliary.reconstruction=1
train dolg photos "${options[@]}"

tested=(benchmark=folder benchmark.root="$out/photos/other_landmarks" max_side=512 'scales=[0.7071,1.0,1.4142]')
learned=(benchmark@learn_on=rparis6k learn_on.root="$other" learn_on.ground_truth="$truth")
spatial=(rerank=spatial rerank.depth=20 rerank.residual=8)
network=(features=network features.max_features=500 'features.scales=[0.5,0.7071,1.0,1.4142]')
verified=(rerank=spatial rerank.depth=20 rerank.residual=16 rerank.least=0.8) nearer=(rerank.least=0.6)
backbone=efficientnet_lite0 delg=()
families
report "$out/[a-d]*/card.json"
cp "$out/table.md" "$here/photos_table.md"
cp "$out/results.json" "$here/photos_results.json"
