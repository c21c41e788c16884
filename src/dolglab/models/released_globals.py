"""Released networks made of a ResNet, a pooling and at most one layer, recognised by their tensor names: CosPlace,
EigenPlaces, cirtorch's GeM networks, CVNet's global branch, SuperGlobal, and the global branch of DELG in PyTorch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from dolglab.contracts import ExtractionProtocol
from dolglab.errors import UserError
from dolglab.models.backbone import NOT_STATED
from dolglab.models.checkpoint import build_model
from dolglab.models.released import BLOCKS, fitted, pycls_modules
from dolglab.models.weights import below, read_file, tensors_of

# torchvision's ResNets by what distinguishes them: bottlenecks, and the number of blocks in the third stage.
RESNETS = {
    (False, 2): "resnet18.tv_in1k",
    (False, 6): "resnet34.tv_in1k",
    (True, 6): "resnet50.tv_in1k",
    (True, 23): "resnet101.tv_in1k",
    (True, 36): "resnet152.tv_in1k",
}
# The positions of its modules when it is stored as a sequence of its children.
PLACES = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
NET = "backbone.net."
THREE_SCALES = (0.7071, 1.0, 1.4142)


@dataclass(frozen=True)
class Layout:
    """How a file names the modules of a ResNet.

    Attributes:
        backbone: finds timm's name of the ResNet from the tensors; raises UserError, with the file's name, if there is
            none.
        modules: maps our module names of such a ResNet to the file's; the second argument are our tensors.
        bgr: whether it expects colours in BGR order.
    """

    backbone: Callable[[Mapping[str, Tensor], str], str]
    modules: Callable[[str, Mapping[str, Tensor]], dict[str, str]]
    bgr: bool = False


@dataclass(frozen=True)
class Family:
    """A family of released networks that are read in the same way.

    Attributes:
        layout: layout of the ResNet.
        head: the file's names of our `pooling` and `fc`.
        protocol: how its authors describe images.
        prefix: an optional prefix of tensor names; if it is present, tensors without it are ignored.
        licence: licence of the weights, as their repository states it; not that of timm's weights for the same ResNet.
        model: arguments of `GlobalDescriptor`.
        backbone: class of the backbone.
        ours: tensors, by our names, that are not in the file.
    """

    layout: Layout
    head: Mapping[str, str]
    protocol: ExtractionProtocol
    prefix: str = ""
    licence: str = NOT_STATED
    model: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = "dolglab.models.backbone.Backbone"
    ours: tuple[str, ...] = ()


def read_global(kind: str, source: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors, under this project's names, of a released network of `FAMILIES[kind]`.

    Raises UserError if the file does not exist or contains code, and if tensors are missing, unknown, of another shape
    or not finite.
    """
    family, name = FAMILIES[kind], f"{kind}:{source}"
    stored = tensors_of(read_file(source), source)
    stored = below(stored, family.prefix) or stored
    backbone = family.layout.backbone(stored, name)
    linear = f"{family.head['fc']}.weight"
    dim = int(stored[linear].shape[0]) if linear in stored else None
    config = {
        "_target_": "dolglab.models.dolg.GlobalDescriptor",
        "backbone": {"_target_": family.backbone, "name": backbone, "licence": family.licence},
        **family.model,
        "dim": dim,
        # Without a layer, the options for the input of the layer are dropped.
        "unit": family.model.get("unit", False) and dim is not None,
    }
    network = build_model(config).state_dict()
    tensors = fitted(network, {**family.layout.modules(backbone, network), **family.head}, stored, name)
    if family.layout.bgr:
        tensors["backbone.net.conv1.weight"] = tensors["backbone.net.conv1.weight"].flip(1)
    return config, tensors | {key: network[key] for key in family.ours}


def _torchvision(prefix: str) -> Layout:
    """A torchvision ResNet stored as a sequence of its children, below a prefix."""

    def backbone(stored: Mapping[str, Tensor], name: str) -> str:
        blocks = {match[1] for key in stored if (match := re.match(rf"{re.escape(prefix)}6\.(\d+)\.", key))}
        found = RESNETS.get((f"{prefix}4.0.conv3.weight" in stored, len(blocks)))
        if found is None:
            raise UserError(
                f"{name} holds no ResNet of 18, 34, 50, 101 or 152 layers: other backbones are not supported"
            )
        return found

    def modules(backbone: str, network: Mapping[str, Tensor]) -> dict[str, str]:
        ours = {key.rpartition(".")[0] for key in network if key.startswith(NET)}
        parts = [(module, *module.removeprefix(NET).partition(".")) for module in ours]
        return {module: f"{prefix}{PLACES[first]}{dot}{rest}" for module, first, dot, rest in parts}

    return Layout(backbone, modules)


def _pycls_backbone(stored: Mapping[str, Tensor], name: str) -> str:
    blocks = {match[1] for key in stored if (match := re.match(r"s3\.b(\d+)\.", key))}
    found = next((backbone for backbone, counts in BLOCKS.items() if counts[2] == len(blocks)), None)
    if found is None:
        raise UserError(f"{name} holds no ResNet of 50 or 101 layers: its third stage has {len(blocks)} blocks")
    return found


def _pooling(name: str, **options: Any) -> dict[str, Any]:
    return {"_target_": f"dolglab.models.pooling.{name}", "_partial_": True, **options}


PYCLS = Layout(_pycls_backbone, lambda backbone, network: pycls_modules(BLOCKS[backbone], ""), bgr=True)
PYCLS_HEAD = {"pooling": "head.pool", "fc": "head.fc"}
GEM = {"pooling": _pooling("GeM")}
PLACE_RECOGNITION = Family(
    _torchvision("backbone."),
    {"pooling": "aggregation.1", "fc": "aggregation.3"},
    ExtractionProtocol((1.0,)),
    model={"pooling": _pooling("UnitGeM")},
)
FAMILIES: dict[str, Family] = {
    # Berton et al., CVPR 2022 and ICCV 2023.
    "cosplace": PLACE_RECOGNITION,
    "eigenplaces": replace(PLACE_RECOGNITION, licence="mit"),
    # Radenovic et al., PAMI 2018; without a whitening layer the pooled feature is the descriptor.
    "cirtorch": Family(
        _torchvision("features."),
        {"pooling": "pool", "fc": "whiten"},
        ExtractionProtocol((1.0, 1.4142, 0.7071), max_side=1024),
        licence="mit",
        model={**GEM, "unit": True},
    ),
    # Lee et al., CVPR 2022; the re-ranker beside it is not read.
    "cvnet": Family(PYCLS, PYCLS_HEAD, ExtractionProtocol(THREE_SCALES), "encoder_q.", model=GEM),
    # CVNet's weights with another pooling (Shao et al., ICCV 2023).
    "superglobal": Family(
        PYCLS,
        PYCLS_HEAD,
        ExtractionProtocol(THREE_SCALES, scale_pooling="max"),
        "encoder_q.",
        model={"pooling": _pooling("RegionalGeM"), "unit": True},
        backbone="dolglab.models.superglobal.ReLUPBackbone",
        ours=("pooling.p",),
    ),
    # The global branch of DELG (Cao et al., ECCV 2020) in PyTorch (feymanpriv/DELG).
    "delg": Family(PYCLS, PYCLS_HEAD, ExtractionProtocol(THREE_SCALES), "globalmodel.", model=GEM),
}
