#!/usr/bin/env bash
# The search page with the demo world's test photos: screenshots in this folder, and search times (needs Chromium and
# `pip install -e '.[dev]'`).
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -d data/demo_world/test ] || python -m src.prepare task=demo_world
python -m src.embed data/demo_world/test/jpg --library outputs/search_page/library --model efficientnet_lite0
python experiments/search_page/shoot.py outputs/search_page/library data/demo_world/test/jpg experiments/search_page
python experiments/search_page/measure.py outputs/search_page/library data/demo_world/test/jpg
python experiments/search_page/listing.py outputs/search_page/library
