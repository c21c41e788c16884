#!/usr/bin/env bash
# Draws the demo world into data/demo_world and its contact sheet into this folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
python -m src.prepare task=demo_world
python -c "from dolglab.demo_world.write import contact_sheet; contact_sheet('data/demo_world', 'experiments/demo_world/contact_sheet.jpg')"
