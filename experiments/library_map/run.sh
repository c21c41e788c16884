#!/usr/bin/env bash
# Screenshots of the map of the demo world's test photos in this folder, and time and memory of a map of 100,000 photos
# (needs Chromium and `pip install -e '.[dev]'`).
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH=.:src
out=outputs/library_map
[ -d data/demo_world/test ] || python -m src.prepare task=demo_world
mkdir -p "$out"
python - > "$out/families.csv" <<'PYTHON'
import json
print("file,family")
for photo, family in json.load(open("data/demo_world/families.json"))["test"].items():
    print(f"{photo}.jpg,{family}")
PYTHON
python -m src.embed data/demo_world/test/jpg --library "$out/demo" --model efficientnet_lite0 --metadata "$out/families.csv"
python -m src.library map --library "$out/demo"
python experiments/library_map/shoot.py "$out/demo" experiments/library_map
[ -d "$out/large" ] || python experiments/library_map/synthetic.py data/demo_world/test/jpg "$out/large"
python experiments/library_map/measure.py "$out/large"
