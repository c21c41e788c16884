#!/usr/bin/env bash
# OmegaConf 2.3.1 with Hydra 1.3.8: a recipe cannot make an option mandatory that has a default, null included.
#
# Who it hurts: whoever has a config group of recipes (experiment=finetune) that need a value which is optional elsewhere
# (weights: null), and writes `weights: ???` there, the documented mark of a mandatory value.
# Expected: the run asks for weights, as for every mandatory value.
# Seen: merging takes `???` as nothing given and keeps the default, so that the run starts without weights and no error. A
# value that is given, null included, is merged as one would think.
# What helps: leave the default out of the primary config, or check the value in the program.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check hydra-core==1.3.8 omegaconf==2.3.1

mkdir -p conf/experiment
printf 'defaults: [_self_, {experiment: null}]\nweights: null\nepochs: 5\n' > conf/config.yaml
printf '# @package _global_\nweights: ???\nepochs: null\n' > conf/experiment/finetune.yaml
cat > program.py << 'EOP'
import hydra


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    print("weights", cfg.weights, "epochs", cfg.epochs)


main()
EOP

seen=$(venv/bin/python program.py experiment=finetune 2>&1 | tail -n 1)
echo "experiment=finetune, which marks weights as mandatory: $seen"
echo "expected: an error that weights are missing"
if [ "$seen" = "weights None epochs None" ]; then
  echo "seen as described"
else
  echo "this has changed" >&2
  exit 1
fi
