"""Multi-scale extraction compared with one image at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dolglab.errors import UserError
from dolglab.extraction.extractor import Extractor, rescale
from dolglab.extraction.shapes import check_protocol
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import GlobalDescriptor

SCALES = (0.3535, 1.0, 1.4142)


@pytest.fixture(scope="module")
def model() -> GlobalDescriptor:
    torch.manual_seed(0)
    return GlobalDescriptor(Backbone("resnet18.tv_in1k", pretrained=False), dim=16).eval()


def photo(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)


@torch.no_grad()
def test_descriptors_equal_the_papers_procedure_image_by_image(model: GlobalDescriptor) -> None:
    images = [photo(64, 96), photo(80, 64), photo(64, 96), photo(1, 1)]
    extracted = Extractor(model, SCALES)(images)
    for image, descriptor in zip(images, extracted, strict=True):
        x = image.permute(2, 0, 1)[None].float()
        parts = []
        for scale in SCALES:
            size = [max(1, round(side * scale)) for side in image.shape[:2]]
            y = x if scale == 1 else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
            parts.append(F.normalize(model(model.backbone.normalise(y))))
        torch.testing.assert_close(descriptor, F.normalize(sum(parts) / 3)[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(extracted.norm(dim=1), torch.ones(4))


@torch.no_grad()
def test_scales_are_joined_by_maximum_on_request(model: GlobalDescriptor) -> None:
    """SuperGlobal's scale GeM, element by element."""
    image = photo(60, 80)
    single = torch.cat([Extractor(model, [scale])([image]) for scale in (0.7071, 1.0)])
    found = Extractor(model, (0.7071, 1.0), scale_pooling="max")([image])
    torch.testing.assert_close(found, F.normalize(single.max(0, keepdim=True).values))


@torch.no_grad()
def test_descriptors_do_not_depend_on_pixels_per_batch(model: GlobalDescriptor) -> None:
    images = [photo(64, 96), photo(80, 64), *(photo(64, 96) for _ in range(4))]
    whole = Extractor(model, SCALES)
    narrow = Extractor(model, SCALES, pixels=2 * 2 * 64 * 96)
    torch.testing.assert_close(narrow(images), whole(images), rtol=1e-4, atol=1e-5)


def test_released_and_antialiased_resizing_differ() -> None:
    pixels = photo(64, 64).permute(2, 0, 1)[None].float()
    released = rescale(pixels, 0.3535, "released")
    assert released.shape == (1, 3, 23, 23)
    assert not torch.allclose(released, rescale(pixels, 0.3535, "antialias"), atol=1.0)


@pytest.mark.parametrize("options", [{"scales": ()}, {"scales": (1.0, 0.0)}])
def test_invalid_settings_are_refused(model: GlobalDescriptor, options: dict) -> None:
    with pytest.raises(UserError, match="scales"):
        Extractor(model, **options)


def test_an_unknown_scale_pooling_is_refused() -> None:
    with pytest.raises(UserError, match=r"scale_pooling.*median"):
        check_protocol((1.0,), "released", "median")
