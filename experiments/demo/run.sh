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
python -m src.train experiment=demo model=gem_light method="trained GeM" name=demo/gem
python -m src.train experiment=demo method="trained DOLG" name=demo/dolg
python -m src.report cards="$out/*/card.json" out="$out"
echo "open $out/report.html"
