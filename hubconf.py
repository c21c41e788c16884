"""Entry points of torch.hub: `torch.hub.load("OWNER/REPOSITORY", "dolg_r50")`, or a checkout with source="local".

A network without trained weights is built from its backbone's ImageNet weights; `load` gives a trained one.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from dolglab import DOLG, Backbone
from dolglab import load as _load
from dolglab.sharing.loading import LoadedModel

dependencies = ["torch", "timm", "faiss", "hydra", "lightning", "cv2"]


def dolg_r50(pretrained: bool = True) -> DOLG:
    """DOLG on ResNet-50, 512-d descriptors; `pretrained` takes the backbone's ImageNet weights."""
    return DOLG(Backbone("resnet50.tv_in1k", pretrained=pretrained))


def dolg_r101(pretrained: bool = True) -> DOLG:
    """DOLG on ResNet-101, 512-d descriptors; `pretrained` takes the backbone's ImageNet weights."""
    return DOLG(Backbone("resnet101.tv_in1k", pretrained=pretrained))


def load(source: str) -> LoadedModel:
    """A trained network as a function of images: see `dolglab.load`."""
    return _load(source)
