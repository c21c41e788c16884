#!/usr/bin/env bash
# The paper's table on the demo world: families A (local features, aggregated, verified), B (global), C (global, then
# verified) and DOLG, trained alike, with what each costs. Codebooks are learned on the validation landmarks.
set -euo pipefail
cd "$(dirname "$0")/../.."
name=paper_table
out=outputs/$name
here=experiments/paper_table
source "$here/families.sh"
rm -rf "$out"
python -m src.prepare task=demo_world

train gem demo model=gem data.test.demo=null
train delg delg_demo model.dim=512 data.test.demo=null
train dolg demo data.test.demo=null

tested=(benchmark=demo 'scales=[1.0]')
learned=(benchmark@learn_on=demo learn_on.root=data/demo_world/validation learn_on.name="demo validation")
# The pictures are 256 pixels wide, so residuals are a few pixels, and images are not doubled for features. A network's
# features are on a grid of 16 pixels and need similar descriptors (chosen on the validation landmarks; of DOLG's, which
# are not trained for matching, none reach 0.8).
spatial=(rerank=spatial rerank.residual=6)
network=(features=network features.max_features=300 'features.scales=[0.5,0.7071,1.0,1.4142]')
verified=(rerank=spatial rerank.residual=16 rerank.least=0.8) nearer=(rerank.least=0.6)
backbone=efficientnet_lite0 delg=()
families
report "$out/[a-d]*/card.json"
cp "$out/table.md" "$out/results.json" "$here/"
rm -rf "$here/figures" && cp -r "$out/figures" "$here/figures"
