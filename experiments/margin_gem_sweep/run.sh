#!/usr/bin/env bash
# Margin x GeM p on the demo world, three seeds each, chosen on the validation landmarks. The same command resumes it.
set -euo pipefail
cd "$(dirname "$0")/../.."
name=margin_gem_sweep
here=experiments/$name
[ -d data/demo_world ] || python -m src.prepare task=demo_world

# The demo's recipe at the time of the measurement. p is fixed, since three learned p would end at similar values.
python -m src.train -m experiment=demo model=dolg_small local=aspp_9x9 margin=arcface freeze_epochs=0 trainer.max_epochs=3 \
  optim.groups.head_lr_scale=1.0 data.image_size=112 pooling.learnable=false test=false name=$name \
  margin.margin=0.05,0.15,0.3 pooling.p=1,3,6 seed=0,1,2
cp outputs/$name/comparison.svg outputs/$name/sweep.csv "$here/"
python $here/chosen.py outputs/$name/sweep.csv
