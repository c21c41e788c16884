#!/usr/bin/env bash
# The main job on the embedded default: make the demo world, then compare untrained GeM, trained GeM and trained DOLG
# on landmarks that none of them was trained or selected on. `make demo` runs this.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=outputs/demo
rm -rf "$out"

python -m src.prepare task=demo_world
python -m src.evaluate model=imagenet_gem backbone=efficientnet_lite0 benchmark=demo 'scales=[1.0]' \
  method="untrained ImageNet GeM" name=demo/untrained
# Validated in the middle and at the end: each time takes as long as a third of an epoch.
train="python -m src.train experiment=demo trainer.check_val_every_n_epoch=3"
$train model=gem_light method="trained GeM" name=demo/gem
$train method="trained DOLG" name=demo/dolg
what="GeM pools the last map of the backbone into one global descriptor; DOLG adds local detail that attention picks from an earlier, finer map."
map="mAP is the mean average precision: 100 where all photos of a landmark stand before all others. Hard counts those seen askew, small or half hidden."
which="Take DOLG with many landmarks, or where the backbone is trained little or not at all, as on a folder of photographs; with as few landmarks as here, trained as long, GeM is as good, and look-alike landmarks both mistake as often (experiments/local_detail)."
python -m src.report cards="$out/*/card.json" out="$out" about="['$what','$map','$which']"
echo "open $out/report.html"
