#!/usr/bin/env bash
# OmegaConf 2.3.1 with Hydra 1.3.8: a recipe cannot make an option mandatory that has a default, even if it is null.
#
# Affected: config groups of recipes (experiment=finetune) that require a value which is optional elsewhere (weights:
# null) and set `weights: ???`, the documented marker of a mandatory value.
# Expected: an error if weights are not given, as for every mandatory value.
# Observed: merging treats `???` as no value and keeps the default, so the run starts without weights and without an
# error. Any other value, including null, replaces the default.
# Workaround: omit the default from the primary config, or check the value in the program.
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
  echo "observed as described"
else
  echo "the behaviour has changed" >&2
  exit 1
fi
