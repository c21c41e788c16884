"""External networks and callables as descriptor networks, and the messages for unsuitable ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dolglab.errors import UserError
from dolglab.extraction.descriptor_store import fingerprint
from dolglab.extraction.extractor import Extractor, for_inference
from dolglab.extraction.local_features import NetworkLocalFeatures
from dolglab.models.backbone import FeatureBackbone
from dolglab.models.foreign import ForeignInput, foreign_network


def grid(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images, 2).flatten(1)


class Small(nn.Module):
    """A convolution, batch norm and mean pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 5, 2), nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).relu().mean((2, 3))


def photos(*sides: tuple[int, int]) -> list[Tensor]:
    return [torch.randint(0, 256, (*side, 3), dtype=torch.uint8) for side in sides]


def test_input_is_normalised_as_specified() -> None:
    given = ForeignInput("x:y", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), licence="mit")
    network = foreign_network(grid, given)
    images = photos((40, 60), (33, 47), (40, 60))
    found = Extractor(for_inference(network))(images)
    for image, descriptor in zip(images, found, strict=True):
        pixels = (image.permute(2, 0, 1) / 255 - torch.tensor(given.mean)[:, None, None]) / torch.tensor(given.std)[
            :, None, None
        ]
        torch.testing.assert_close(descriptor, F.normalize(grid(pixels[None]))[0])
    assert isinstance(network.backbone, FeatureBackbone)
    assert (network.dim, network.backbone.licence, network.training) == (12, "mit", False)
    assert network.protocol is not None
    assert network.protocol.scales == (1.0,)
    for said in ("x:y", "any size", "0.1, 0.2, 0.3", "0.4, 0.5, 0.6", "12 numbers", "mit"):
        assert said in str(network.protocol.note)


def test_images_are_resized_if_a_size_is_given() -> None:
    seen = []
    network = foreign_network(lambda images: seen.append(images.shape[-2:]) or images.flatten(1), _sized((4, 6)))
    (image,) = photos((50, 70))
    (found,) = Extractor(network)([image])
    assert network.dim == 3 * 4 * 6
    assert set(seen) == {(4, 6)}
    pixels = network.backbone.normalise(image.permute(2, 0, 1)[None])
    small = F.interpolate(pixels, size=(4, 6), mode="bilinear", antialias=True)
    torch.testing.assert_close(found, F.normalize(small.flatten(1))[0])


def _sized(size: tuple[int, int]) -> ForeignInput:
    return ForeignInput("x:y", size=size)


def test_a_module_is_folded_and_its_tensors_are_in_the_fingerprint() -> None:
    net = Small().eval()
    assert net.norm.running_mean is not None
    net.norm.running_mean += 0.3
    network = foreign_network(net, ForeignInput("x:y"))
    images = photos((64, 80))
    torch.testing.assert_close(
        Extractor(for_inference(network))(images), Extractor(network)(images), rtol=1e-4, atol=1e-5
    )
    before = fingerprint(network)
    assert before == fingerprint(foreign_network(net, ForeignInput("../x:y", licence="mit")))
    with torch.no_grad():
        net.conv.weight[0, 0, 0, 0] += 1
    assert fingerprint(network) != before


@pytest.mark.parametrize(
    "other",
    [
        ForeignInput("x:y", mean=(0.5, 0.5, 0.5)),
        ForeignInput("x:y", size=(8, 8)),
        ForeignInput("x:y", digest="1"),
        ForeignInput("x:y", arguments={"width": 2}),
    ],
)
def test_input_settings_are_part_of_the_fingerprint(other: ForeignInput) -> None:
    assert fingerprint(foreign_network(grid, other)) != fingerprint(foreign_network(grid, ForeignInput("x:y")))


def fails(images: Tensor) -> Tensor:
    raise KeyError("a\nb")


BAD: list[tuple[Callable[[Tensor], Any], str]] = [
    (lambda images: images.mean((2, 3)) * float("nan"), "NaN"),
    (lambda images: images.flatten(1), "150528 numbers.*301056.*model.size"),
    (lambda images: images, r"\(2, 3, 224, 224\).*2 images"),
    (lambda images: images.mean((2, 3))[:1], r"\(1, 3\) for 2 images"),
    (lambda images: images.argmax(1).flatten(1)[:, :4], "int64"),
    (lambda images: (images.mean((2, 3)), None), "tuple"),
    (lambda images: torch.empty(2, 4, device="meta"), "on meta for images on cpu"),
    (fails, "KeyError: 'a"),
]


@pytest.mark.parametrize(("net", "message"), BAD)
def test_unsuitable_networks_give_one_line(net: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        foreign_network(net, ForeignInput("x:y"))
    assert "\n" not in str(caught.value)
    assert "x:y" in str(caught.value)


def test_lengths_that_depend_on_the_image_size_are_reported() -> None:
    network = foreign_network(lambda images: images.mean((2, 3))[:, : 2 + (images.shape[2] > 100)], ForeignInput("x:y"))
    with pytest.raises(UserError, match="2 numbers for images of 50 x 60, and 3 for others"):
        Extractor(network)(photos((50, 60)))


@pytest.mark.parametrize(
    "given", [{"mean": (1.0,)}, {"std": (1.0, 0.0, 1.0)}, {"size": (3,)}, {"size": (0, 4)}], ids=str
)
def test_invalid_inputs_are_refused(given: dict) -> None:
    with pytest.raises(UserError, match=rf"model\.{next(iter(given)) if 'size' in given else 'mean'}"):
        ForeignInput("x:y", **given)


def test_a_descriptor_has_no_local_features() -> None:
    with pytest.raises(UserError, match="no local features"):
        NetworkLocalFeatures(foreign_network(grid, ForeignInput("x:y")))
