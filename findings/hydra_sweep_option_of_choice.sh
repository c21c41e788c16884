#!/usr/bin/env bash
# Hydra 1.3.8: a sweep over the choices of a group cannot set an option that only these choices have.
#
# Who it hurts: whoever compares choices of a group at one value, `-m model=a,b model.width=8`, where the group's default
# (null here) has no such key.
# Expected: two jobs of width 8, since `model=a model.width=8` alone is one.
# Seen: before the first job Hydra composes the configuration of the sweep itself, from all that is not swept, and finds no
# model there: "To append to your config use +model.width=8". With the + that passes, and each job refuses it: "An item is
# already at 'model.width'".
# What helps: sweep the option too, over one value: 'model.width=choice(8)'.
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

# How many of the jobs that are asked for have the width.
wide() {
  (venv/bin/python program.py "$@" 2>&1 || true) | grep -c '^width 8$' || true
}

said="alone $(wide model=a model.width=8), swept $(wide -m model=a,b model.width=8), with + $(wide -m model=a,b +model.width=8),"
said+=" with choice() $(wide -m model=a,b 'model.width=choice(8)')"
echo "jobs of the width: $said"
echo "expected: alone 1, swept 2"
if [ "$said" = "alone 1, swept 0, with + 0, with choice() 2" ]; then
  echo "seen as described"
else
  echo "this has changed" >&2
  exit 1
fi
