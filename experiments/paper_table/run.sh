#!/usr/bin/env bash
# The paper's table on the demo world: families A (local features, aggregated, verified), B (global), C (global, then
# verified) and DOLG, trained alike, with what each costs. Codebooks are learned on the validation landmarks.
set -euo pipefail
cd "$(dirname "$0")/../.."
world=data/demo_world
out=outputs/paper_table
here=experiments/paper_table
rm -rf "$out"
python -m src.prepare task=demo_world

train() { # NAME EXPERIMENT OPTIONS...
  python -m src.train name="paper_table/$1" experiment="$2" data.test.demo=null "${@:3}"
}
train trained_gem demo model=gem
train trained_delg delg_demo model.dim=512
train trained_dolg demo

# The world's pictures are 256 pixels wide: a few pixels of residual, and no features of doubled images. A network's
# features sit on a grid of 16 pixels, and need matches that are near (both chosen on the validation landmarks).
validation=(benchmark@learn_on=demo learn_on.root="$world/validation" learn_on.name="demo validation")
spatial=(rerank=spatial rerank.residual=6)
network=(features=network features.max_features=300 'features.scales=[0.5,0.7071,1.0,1.4142]')
verified=(rerank=spatial rerank.residual=16 rerank.least=0.8)
of() { echo "checkpoint=$out/trained_$1/checkpoints/best.ckpt"; }
evaluate() { # NAME METHOD OPTIONS...
  python -m src.evaluate name="paper_table/$1" method="'$2'" benchmark=demo 'scales=[1.0]' store="$out/descriptors" "${@:3}"
}
evaluate a1_rootsift "(A) RootSIFT-ASMK" features=rootsift aggregate=asmk "${validation[@]}"
evaluate a2_rootsift_sp "(A) RootSIFT-ASMK + SP" features=rootsift aggregate=asmk "${validation[@]}" "${spatial[@]}"
evaluate a3_delg "(A) DELG-ASMK" "$(of delg)" aggregate=asmk "${network[@]}" "${validation[@]}"
evaluate a4_delg_sp "(A) DELG-ASMK + SP" "$(of delg)" aggregate=asmk "${network[@]}" "${validation[@]}" "${verified[@]}"
evaluate b1_rmac "(B) R-MAC, untrained" model=imagenet_gem backbone=efficientnet_lite0 pooling=rmac
evaluate b2_untrained "(B) GeM, untrained" model=imagenet_gem backbone=efficientnet_lite0
evaluate b3_gem "(B) GeM" "$(of gem)"
evaluate b4_delg "(B) DELG, global" "$(of delg)"
evaluate c1_rootsift_sp "(C) GeM, RootSIFT + SP" "$(of gem)" features=rootsift "${spatial[@]}"
evaluate c2_delg_sp "(C) DELG + SP" "$(of delg)" "${network[@]}" "${verified[@]}"
evaluate d1_dolg "DOLG" "$(of dolg)"
evaluate d2_dolg_sp "DOLG + SP" "$(of dolg)" "${network[@]}" "${verified[@]}"
evaluate d3_dolg_diffusion "DOLG, diffusion" "$(of dolg)" rerank=diffusion rerank.neighbours=10
evaluate d4_dolg_neighbours "DOLG, neighbours" "$(of dolg)" rerank=neighbours
python -m src.report cards="'$out/[a-d]*/card.json'" out="$out" published=true against=DOLG
cp "$out/table.md" "$out/results.json" "$here/"
rm -rf "$here/figures" && cp -r "$out/figures" "$here/figures"
