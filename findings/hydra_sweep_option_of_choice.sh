#!/usr/bin/env bash
# Hydra 1.3.8: a sweep over the choices of a group cannot set an option that only these choices have.
#
# Affected: comparing the choices of a group with one value of such an option, `-m model=a,b model.width=8`, if the
# group's default (null here) does not have the key.
# Expected: two jobs of width 8, since `model=a model.width=8` works alone.
# Observed: before the first job, Hydra composes the configuration of the sweep without the swept choices and finds no
# model there: "To append to your config use +model.width=8". With the +, that step succeeds, but each job fails: "An
# item is already at 'model.width'".
# Workaround: sweep the option too, with one value: 'model.width=choice(8)'.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check hydra-core==1.3.8 omegaconf==2.3.1

mkdir -p conf/model
echo 'defaults: [{model: null}, _self_]' > conf/config.yaml
echo 'width: 1' > conf/model/a.yaml
echo 'width: 2' > conf/model/b.yaml
cat > program.py << 'EOF'
import hydra


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    print("width", cfg.model.width)


main()
EOF

# The number of requested jobs that have the width.
wide() {
  (venv/bin/python program.py "$@" 2>&1 || true) | grep -c '^width 8$' || true
}

said="alone $(wide model=a model.width=8), swept $(wide -m model=a,b model.width=8), with + $(wide -m model=a,b +model.width=8),"
said+=" with choice() $(wide -m model=a,b 'model.width=choice(8)')"
echo "jobs with the width: $said"
echo "expected: alone 1, swept 2"
if [ "$said" = "alone 1, swept 0, with + 0, with choice() 2" ]; then
  echo "observed as described"
else
  echo "the behaviour has changed" >&2
  exit 1
fi
