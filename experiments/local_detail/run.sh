#!/usr/bin/env bash
# When does local detail pay? DOLG beside its global branch, GeM, on equal budgets: the recipe and its parts, then the
# number of training landmarks, then the resolution, then folders of real photographs where PHOTOS="DIR:192 DIR:96" names
# them and the side of their crops.
# Ends in results.md, results.json and two figures below OUT.
#   bash experiments/local_detail/run.sh            # 100 runs, of 144 px two to three minutes each on two cores
#   bash experiments/local_detail/run.sh --quick    # four of them: 60 and 200 landmarks, one seed
# A run that is there is not run again, one that was stopped goes on. SEEDS="0 1 2 3 4" are those of the recipe,
# MORE="0 1 2" of everything else, LANDMARKS and MAPS the two axes. ONLY="landmarks maps" runs those studies alone, of
# recipe, parts, landmarks, maps and photos; several such commands share an OUT.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-outputs/local_detail}
seeds=${SEEDS:-0 1 2 3 4} more=${MORE:-0 1 2} landmarks=${LANDMARKS:-60 200 600 2000} maps=${MAPS:-9 14 20} photos=${PHOTOS:-}
only=${ONLY:-recipe parts landmarks maps photos} recipe="experiment=demo trainer.check_val_every_n_epoch=3"
if [ "${1:-}" = --quick ]; then
  only=landmarks more=0 landmarks="60 200"
fi
studied() { [[ " $only " == *" $1 "* ]]; }

for count in $landmarks; do
  if [ "$count" -lt 60 ] || [ $((count % 4)) != 0 ]; then
    echo "error: LANDMARKS=$count: families have four, and fewer than 60 landmarks are no 18 batches an epoch" >&2
    exit 2
  fi
done
for photo in $photos; do
  if [[ ! $photo =~ :[0-9]+$ ]] || [ ! -d "${photo%:*}" ]; then
    echo "error: PHOTOS=$photo: a folder and the side of its crops, such as DIR:192" >&2
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
    echo "error: $run was run with other settings ($run/settings.yaml, now settings.new): take another OUT, or delete it" >&2
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

if studied recipe; then
  python -m src.prepare task=demo_world
  for seed in $seeds; do
    both recipe "$seed"
  done
fi

# The recipe without one of its parts, and without all of them.
if studied parts; then
  python -m src.prepare task=demo_world
  plain="margin=arcface freeze_epochs=0 optim.groups.head_lr_scale=1.0 model.init=default model.batch_norm=false"
  for seed in $more; do
    both parts/no_frozen_epochs "$seed" freeze_epochs=0
    both parts/no_batch_norm "$seed" model.batch_norm=false
    both parts/no_orthogonal_init "$seed" model.init=default
    both parts/margin_0.15 "$seed" margin=arcface
    both parts/one_learning_rate "$seed" optim.groups.head_lr_scale=1.0
    train "parts/aspp/dolg/$seed" seed="$seed" local=aspp_9x9
    train "parts/no_attention/dolg/$seed" seed="$seed" local.attention=false
    train "parts/stride_8/dolg/$seed" seed="$seed" 'backbone.reductions=[8,32]'
    train "parts/hidden_512/dolg/$seed" seed="$seed" model.hidden=512
    # shellcheck disable=SC2086
    train "parts/none/gem/$seed" model=gem_light seed="$seed" $plain
    # shellcheck disable=SC2086
    train "parts/none/dolg/$seed" seed="$seed" local=aspp_9x9 model.hidden=512 $plain
  done
fi

# As many steps for any number of landmarks: epochs of 18 batches, of which 60 landmarks have no more.
studied landmarks || landmarks=""
for count in $landmarks; do
  world=data/local_detail/$count
  python -m src.prepare task=demo_world root="$world" call.train_families=$((count / 4)) \
    call.validation_families=12 call.test_families=24
  for seed in $more; do
    both "landmarks/$count" "$seed" data.root="$world" trainer.limit_train_batches=18 freeze_epochs=6 \
      trainer.max_epochs=12
  done
done

# Local maps of 9, 14 and 20 cells a side: the same photographs, shrunk as far in training as in the test.
studied maps || maps=""
for cells in $maps; do
  world=data/local_detail/wide
  python -m src.prepare task=demo_world root="$world" call.width=568 call.height=426 call.validation_families=12 \
    call.test_families=24
  for seed in $more; do
    both "maps/$cells" "$seed" data.root="$world" data.image_size=$((16 * cells)) max_side=$((568 * cells / 20))
  done
done

# Held-out photos of the landmarks that are trained on, and photos of others; each seed has a split of its own.
studied photos || photos=""
for photo in $photos; do
  folder=${photo%:*} recipe="experiment=photos test_scales=[1.0] data.image_size=${photo##*:}"
  for split in photos landmarks; do
    for seed in $more; do
      both "$(basename "$folder")/$split" "$seed" data.root="$folder" data.split="$split"
    done
  done
done
PYTHONPATH=src python experiments/local_detail/compare.py "$out"
