from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from dolglab.data.augment import NUM_DRAWS, Augmentation, colour_shift
from dolglab.errors import UserError

DRAWS = torch.rand((4, NUM_DRAWS), generator=torch.Generator().manual_seed(1))
IMAGES = torch.randint(0, 256, (4, 9, 11, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
CHANNELS_FIRST = IMAGES.permute(0, 3, 1, 2)


def factor(column: int, strength: float) -> list[float]:
    return (1 + strength * (2 * DRAWS[:, column] - 1)).tolist()


def test_without_augmentation_pixels_are_unchanged() -> None:
    out = Augmentation()(IMAGES, DRAWS)
    assert out.dtype == torch.uint8
    assert torch.equal(out, CHANNELS_FIRST)


def test_flip_mirrors_the_samples_that_drew_it() -> None:
    draws = DRAWS.clone()
    draws[:, 0] = torch.tensor([0.0, 0.29, 0.31, 0.99])
    out = Augmentation(flip=0.3)(IMAGES, draws)
    expected = np.stack([image[:, ::-1] if row < 2 else image for row, image in enumerate(IMAGES.numpy())])
    np.testing.assert_array_equal(out.permute(0, 2, 3, 1).numpy(), expected)


@pytest.mark.parametrize(
    ("name", "column", "adjust"),
    [
        ("brightness", 1, F.adjust_brightness),
        ("contrast", 2, F.adjust_contrast),
        ("saturation", 3, F.adjust_saturation),
    ],
)
def test_light_and_colour_equal_torchvision(name: str, column: int, adjust: Callable[..., torch.Tensor]) -> None:
    strength: dict[str, Any] = {name: 0.6}
    out = Augmentation(**strength)(IMAGES, DRAWS)
    expected = torch.stack(
        [adjust(image / 255, f) * 255 for image, f in zip(CHANNELS_FIRST, factor(column, 0.6), strict=True)]
    )
    torch.testing.assert_close(out, expected, atol=0.1, rtol=0)


def test_colour_shift_is_a_normal_walk_along_imagenets_components() -> None:
    draws = torch.rand((20000, 3), generator=torch.Generator().manual_seed(0))
    shifts = colour_shift(draws, 0.1)[..., 0, 0].double().numpy()
    values, vectors = np.linalg.eigh(np.cov(shifts.T))
    np.testing.assert_allclose(np.sqrt(values[::-1]) / 25.5, [0.2175, 0.0188, 0.0045], rtol=0.05)
    np.testing.assert_allclose(np.abs(vectors[:, -1]), [0.5675, 0.5808, 0.5836], atol=0.01)
    np.testing.assert_allclose(shifts.mean(0), 0, atol=0.1)


def test_colour_shift_is_the_same_for_every_pixel_of_a_sample() -> None:
    moved = Augmentation(colour_pca=0.1)(IMAGES, DRAWS) - CHANNELS_FIRST
    torch.testing.assert_close(moved, moved[..., :1, :1].expand_as(moved), atol=1e-4, rtol=0)
    assert torch.isfinite(Augmentation(colour_pca=0.1)(IMAGES, torch.zeros(4, NUM_DRAWS))).all()


def test_a_sample_does_not_depend_on_its_batch() -> None:
    augmentation = Augmentation(flip=0.5, brightness=0.3, contrast=0.3, saturation=0.3, colour_pca=0.1)
    whole = augmentation(IMAGES, DRAWS)
    for row in range(4):
        torch.testing.assert_close(augmentation(IMAGES[row : row + 1], DRAWS[row : row + 1])[0], whole[row])


@pytest.mark.parametrize(
    "options",
    [
        {"area": (0, 1)},
        {"area": (0.5, 0.4)},
        {"area": (0.5, 1.1)},
        {"ratio": (0, 1)},
        {"ratio": (2, 1)},
        {"flip": 1.5},
        {"brightness": -0.1},
        {"colour_pca": -1},
    ],
)
def test_impossible_ranges_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="augment"):
        Augmentation(**options)
