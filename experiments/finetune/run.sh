#!/usr/bin/env bash
# Train on half of the landmarks of a folder of photographs, then finetune that checkpoint on all of them.
# Usage: experiments/finetune/run.sh PHOTOS
set -euo pipefail
cd "$(dirname "$0")/../.."
photos=$(realpath "$1")
half=outputs/finetune_half_photos
mkdir -p "$half"
ls "$photos" | head -n $(($(ls "$photos" | wc -l) / 2)) | while read -r landmark; do
  ln -sfn "$photos/$landmark" "$half/$landmark"
done
python -m src.train experiment=photos data.root="$half" trainer.max_epochs=4 name=finetune_half
python -m src.train experiment=finetune weights=outputs/finetune_half/checkpoints/best.ckpt data.root="$photos" name=finetune
python -m src.report 'cards=[outputs/finetune/baseline,outputs/finetune]' out=outputs/finetune_all
