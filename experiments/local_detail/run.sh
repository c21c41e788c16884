#!/usr/bin/env bash
# When does local detail pay? DOLG and its global branch, GeM, with equal budgets. The recipe trains everything from the
# first step; frozen_first, with the backbone frozen at first, is then varied part by part; then the number of training
# landmarks, the resolution, and folders of real photographs, given as PHOTOS="DIR:192 DIR:96" with the side of
# their crops.
# Writes results.md, results.json and two figures below OUT.
#   bash experiments/local_detail/run.sh            # 143 runs; those at 144 px take two to three minutes each on two cores
#   bash experiments/local_detail/run.sh --quick    # four of them: 60 and 200 landmarks, one seed
# Finished runs are not repeated, and a stopped one is resumed. SEEDS="0 1 2 3 4" are those of recipe and
# frozen_first, MORE="0 1 2" those of everything else, LANDMARKS and MAPS the two axes. ONLY="landmarks maps" runs these
# studies only, of recipe, frozen_first, whole, parts, landmarks, whole_landmarks, maps, photos and whole_photos; several
# such commands share an OUT.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-outputs/local_detail}
seeds=${SEEDS:-0 1 2 3 4} more=${MORE:-0 1 2} landmarks=${LANDMARKS:-60 200 600 2000} maps=${MAPS:-9 14 20} photos=${PHOTOS:-}
only=${ONLY:-recipe frozen_first whole parts landmarks whole_landmarks maps photos whole_photos}
recipe="experiment=demo trainer.check_val_every_n_epoch=3"
if [ "${1:-}" = --quick ]; then
  only=landmarks more=0 landmarks="60 200"
fi
studied() { [[ " $only " == *" $1 "* ]]; }

for count in $landmarks; do
  if [ "$count" -lt 60 ] || [ $((count % 4)) != 0 ]; then
    echo "error: LANDMARKS=$count: give a multiple of four, the size of a family, from 60 on (18 batches per epoch)" >&2
    exit 2
  fi
done
for photo in $photos; do
  if [[ ! $photo =~ :[0-9]+$ ]] || [ ! -d "${photo%:*}" ]; then
    echo "error: PHOTOS=$photo: give a folder and the side of its crops, such as DIR:192" >&2
    exit 2
  fi
done

train() { # NAME OVERRIDES...: a run below `out`, once
  local run=$out/$1
  shift
  # shellcheck disable=SC2086
  set -- $recipe hydra.run.dir="$run" name="${run#outputs/}" resume=auto "$@"
  mkdir -p "$run"
  python -m src.train "$@" --cfg=job --resolve > "$run/settings.new"
  if [ -e "$run/settings.yaml" ] && ! cmp -s "$run/settings.yaml" "$run/settings.new"; then
    echo "error: $run was run with other settings ($run/settings.yaml, now settings.new): use another OUT, or delete it" >&2
    exit 2
  fi
  mv "$run/settings.new" "$run/settings.yaml"
  [ -e "$run/card.json" ] || python -m src.train "$@"
}

both() { # NAME SEED OVERRIDES...: GeM and DOLG
  local name=$1 seed=$2
  shift 2
  train "$name/gem/$seed" model=gem_light seed="$seed" "$@"
  train "$name/dolg/$seed" seed="$seed" "$@"
}

if studied recipe || studied frozen_first || studied whole || studied parts; then
  python -m src.prepare task=demo_world
fi
# Train the whole network, or first only the new layers, with the backbone frozen for three of the six epochs.
for study in recipe frozen_first; do
  studied $study || continue
  for seed in $seeds; do
    both $study "$seed" freeze_epochs=$([ $study = recipe ] && echo 0 || echo 3)
  done
done

# Other local branches in the recipe.
if studied whole; then
  for seed in $more; do
    train "whole/stride_8/dolg/$seed" seed="$seed" freeze_epochs=0 'backbone.reductions=[8,32]'
    train "whole/aspp/dolg/$seed" seed="$seed" freeze_epochs=0 local=aspp_9x9
    train "whole/hidden_512/dolg/$seed" seed="$seed" freeze_epochs=0 model.hidden=512
    train "whole/no_attention/dolg/$seed" seed="$seed" freeze_epochs=0 local.attention=false
    train "whole/local_weight_0/dolg/$seed" seed="$seed" freeze_epochs=0 model.local_weight=0.0
  done
fi

# frozen_first without one of its parts, and the recipe without all of them.
if studied parts; then
  plain="margin=arcface freeze_epochs=0 optim.groups.head_lr_scale=1.0 model.init=default model.batch_norm=false"
  for seed in $more; do
    both parts/no_batch_norm "$seed" freeze_epochs=3 model.batch_norm=false
    both parts/no_orthogonal_init "$seed" freeze_epochs=3 model.init=default
    both parts/margin_0.15 "$seed" freeze_epochs=3 margin=arcface
    both parts/one_learning_rate "$seed" freeze_epochs=3 optim.groups.head_lr_scale=1.0
    train "parts/aspp/dolg/$seed" seed="$seed" freeze_epochs=3 local=aspp_9x9
    train "parts/no_attention/dolg/$seed" seed="$seed" freeze_epochs=3 local.attention=false
    train "parts/stride_8/dolg/$seed" seed="$seed" freeze_epochs=3 'backbone.reductions=[8,32]'
    train "parts/hidden_512/dolg/$seed" seed="$seed" freeze_epochs=3 model.hidden=512
    # shellcheck disable=SC2086
    train "parts/none/gem/$seed" model=gem_light seed="$seed" $plain
    # shellcheck disable=SC2086
    train "parts/none/dolg/$seed" seed="$seed" local=aspp_9x9 model.hidden=512 $plain
  done
fi

# Equal numbers of steps for any number of landmarks: epochs of 18 batches, all that 60 landmarks have.
studied landmarks || studied whole_landmarks || landmarks=""
for count in $landmarks; do
  world=data/local_detail/$count
  python -m src.prepare task=demo_world root="$world" call.train_families=$((count / 4)) \
    call.validation_families=12 call.test_families=24
  for study in landmarks whole_landmarks; do
    studied $study || continue
    for seed in $more; do
      both "$study/$count" "$seed" data.root="$world" trainer.limit_train_batches=18 trainer.max_epochs=12 \
        freeze_epochs=$([ $study = landmarks ] && echo 6 || echo 0)
    done
  done
done

# Local maps of 9, 14 and 20 cells per side: the same photographs, shrunk equally in training and test.
studied maps || maps=""
for cells in $maps; do
  world=data/local_detail/wide
  python -m src.prepare task=demo_world root="$world" call.width=568 call.height=426 call.validation_families=12 \
    call.test_families=24
  for seed in $more; do
    both "maps/$cells" "$seed" data.root="$world" freeze_epochs=3 data.image_size=$((16 * cells)) \
      max_side=$((568 * cells / 20))
  done
done

# Held-out photos of the training landmarks, and photos of other landmarks; each seed has its own split.
studied photos || studied whole_photos || photos=""
for photo in $photos; do
  folder=${photo%:*} recipe="experiment=photos test_scales=[1.0] data.image_size=${photo##*:}"
  name=$(basename "$folder")
  for seed in $more; do
    for split in photos landmarks; do
      ! studied photos || both "$name/$split" "$seed" data.root="$folder" data.split="$split"
    done
    ! studied whole_photos ||
      both "whole_$name/photos" "$seed" data.root="$folder" freeze_epochs=0 backbone.freeze_bn=true
  done
done
PYTHONPATH=src python experiments/local_detail/compare.py "$out"
