"""Synthetic weights of place recognition under the official names, recognised by their keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from hydra.utils import instantiate
from torch import Tensor

from dolglab.errors import UserError
from dolglab.models.released_heads import is_released_head, read_released_head
from dolglab.sharing.export import from_released, new_folder, write_model
from dolglab.sharing.networks import load_network

DINOV2, RESNET50 = "vit_base_patch14_dinov2.lvd142m", "resnet50.tv_in1k"
# Length of each head's vector.
LENGTHS = {"salad": 8448, "megaloc": 16640, "boq_dinov2": 12288, "boq_resnet50": 16384, "mixvpr": 4096}


def zeros(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {key: torch.zeros(shape) for key, shape in shapes.items()}


def trunk(name: str, prefix: str, places: bool = False) -> dict[str, Tensor]:
    """A backbone's tensors under DINOv2's or torchvision's names; with `places`, as a list of modules."""
    with torch.device("meta"):
        state = timm.create_model(name, pretrained=False).state_dict()
    if name == DINOV2:
        shapes = {key: list(value.shape) for key, value in state.items()} | {"mask_token": [1, 768]}
    else:
        kept = {key: value for key, value in state.items() if not key.startswith(("layer4", "fc"))}
        place = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6"} if places else {}
        split = {key: key.partition(".") for key in kept}
        names = {key: f"{place.get(first, first)}.{rest}" for key, (first, _, rest) in split.items()}
        shapes = {names[key]: list(value.shape) for key, value in kept.items()}
    return {f"{prefix}{key}": value for key, value in zeros(shapes).items()}


def made_up(kind: str, parity: Path) -> dict[str, Tensor]:
    keys = json.loads((parity / "heads" / "keys.json").read_text())["keys"]
    cases = {
        "salad": ("salad/default", DINOV2, "backbone.model.", "aggregator."),
        "megaloc": ("salad/default", DINOV2, "backbone.model.", "aggregator.agg."),
        "boq_dinov2": ("boq/dinov2", DINOV2, "backbone.dino.", "aggregator."),
        "boq_resnet50": ("boq/resnet50", RESNET50, "backbone.net.", "aggregator."),
        "mixvpr": ("mixvpr/release/20x20", RESNET50, "backbone.model.", "aggregator."),
    }
    case, name, below_trunk, below_head = cases[kind]
    head = zeros({f"{below_head}{key}": shape for key, shape in keys[case]})
    if kind == "megaloc":
        for part, shape in (("weight", [256, 512, 1, 1]), ("bias", [256])):
            head[f"{below_head}cluster_features.3.{part}"] = torch.zeros(shape)
        # The released layer has 8448 rows.
        head |= zeros({"aggregator.linear.weight": [8, 16640], "aggregator.linear.bias": [8]})
    return trunk(name, below_trunk, places=kind == "boq_resnet50") | head


@pytest.mark.parametrize("kind", LENGTHS)
def test_official_names_are_read(kind: str, parity: Path) -> None:
    stored = made_up(kind, parity)
    assert is_released_head(stored)
    marks = {"salad": "score.3.bias", "megaloc": "agg.score.3.bias", "mixvpr": "row_proj.bias"}
    mark = f"aggregator.{marks.get(kind, 'fc.bias')}"
    stored[mark] = torch.randn(stored[mark].shape)
    config, tensors = read_released_head(stored)
    ours = {key: value for key, value in tensors.items() if key.startswith("pooling.")}
    assert any(torch.equal(value, stored[mark]) for value in ours.values())
    final_norm = config["backbone"].get("final_norm")
    assert final_norm == {"salad": True, "megaloc": True, "boq_dinov2": False}.get(kind)
    assert config["dim"] == (8 if kind == "megaloc" else None)
    assert instantiate({**config["pooling"], "_partial_": False}, channels=8).dim == LENGTHS[kind]


@torch.no_grad()
def test_a_file_is_loaded_and_exported(parity: Path, tmp_path: Path) -> None:
    """MixVPR's weights, the smallest, as a Lightning checkpoint of another project."""
    stored = {key: 0.02 * torch.rand(value.shape) for key, value in made_up("mixvpr", parity).items()}
    torch.save({"state_dict": stored, "epoch": 3}, tmp_path / "released.ckpt")
    network = load_network(f"mixvpr:{tmp_path / 'released.ckpt'}")
    image = torch.randn(1, 3, 64, 96)
    expected = network(image)
    assert expected.shape == (1, 4096)
    assert network.protocol is not None
    assert (network.protocol.scales, network.side) == ((1.0,), 320)
    with pytest.raises(UserError, match="its head is MixVPR"):
        load_network(f"boq:{tmp_path / 'released.ckpt'}")
    with new_folder(tmp_path / "model") as folder:
        write_model(folder, *from_released(f"mixvpr:{tmp_path / 'released.ckpt'}"))
    torch.testing.assert_close(load_network(str(tmp_path / "model"))(image), expected)


def test_tensors_that_do_not_fit_are_refused(parity: Path) -> None:
    stored = made_up("mixvpr", parity)
    missing = {key: value for key, value in stored.items() if key != "backbone.model.layer1.0.conv1.weight"}
    with pytest.raises(UserError, match=r"1 missing.*layer1\.0\.conv1"):
        read_released_head(missing)
    with pytest.raises(UserError, match=r"row_proj"):
        read_released_head({key: value for key, value in stored.items() if "row_proj.weight" not in key})
    with pytest.raises(UserError, match=r"aggregator"):
        read_released_head({"aggregator.other": torch.zeros(1)})
    for weight in (torch.zeros(()), torch.zeros(4, 0)):
        with pytest.raises(UserError, match=r"another shape"):
            read_released_head(stored | {"aggregator.row_proj.weight": weight})
    # A large number in a name must not create that many layers.
    with pytest.raises(UserError, match=r"mix\.999999999"):
        read_released_head(stored | {"aggregator.mix.999999999.mix.0.bias": torch.zeros(400)})
    with pytest.raises(UserError, match=r"not finite"):
        read_released_head(stored | {"aggregator.row_proj.bias": torch.full((4,), torch.nan)})
