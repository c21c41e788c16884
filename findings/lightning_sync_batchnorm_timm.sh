#!/usr/bin/env bash
# Lightning 2.6.6 with timm 1.0.31: Trainer(sync_batchnorm=True) removes activations from EfficientNets.
#
# Affected: training timm networks whose batch norms include an activation (EfficientNet, MobileNet, RegNet and
# others) on several GPUs with synchronised batch norm. They are trained and tested without those activations.
# Expected: the same network with statistics over all processes, as from timm's own converter.
# Observed: Lightning calls torch's converter, which turns timm's BatchNormAct2d into a plain SyncBatchNorm. With the
# same weights, outputs differ by orders of magnitude, without an error or a warning. Its revert() does not restore
# them.
# Workaround: a LayerSync plugin that calls timm.layers.norm_act.convert_sync_batchnorm. ResNets are not affected.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.14.1 lightning==2.6.6 timm==1.0.31 numpy==2.4.6

cat > program.py << 'EOF'
import timm
import torch
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from timm.layers.norm_act import convert_sync_batchnorm

images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def change(name, convert):
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    before = network.forward_features(images)
    return float((convert(network).eval().forward_features(images) - before).norm() / before.norm())


lightning = TorchSyncBatchNorm()
for name in ("tf_efficientnet_lite0", "resnet18"):
    ours = change(name, lightning.apply)
    reverted = change(name, lambda network: lightning.revert(lightning.apply(network)))
    print(f"{name}: changed {ours > 0.1}, changed after revert {reverted > 0.1}, by timm's {change(name, convert_sync_batchnorm) > 0.1}")
EOF

said=$(venv/bin/python -W ignore program.py)
echo "$said"
echo "expected: changed False everywhere"
if [ "$said" = "tf_efficientnet_lite0: changed True, changed after revert True, by timm's False
resnet18: changed False, changed after revert False, by timm's False" ]; then
  echo "observed as described"
else
  echo "the behaviour has changed" >&2
  exit 1
fi
