"""Made-up descriptors that an adapter can improve: the directions that separate landmarks have small variance."""

from __future__ import annotations

import numpy as np


def planted(landmarks: int = 8, photos: int = 12, dim: int = 16, draw: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """L2-normalised descriptors, (n, dim), and their landmarks, (n,); another `draw` gives other photos of these."""
    centres = np.random.default_rng(0).normal(size=(landmarks, dim))
    labels = np.repeat(np.arange(landmarks), photos)
    # A quarter of the directions is noise with the largest variance.
    spread = np.where(np.arange(dim) < dim // 4, 4.0, 0.5)
    centres[:, : dim // 4] = 0
    noise = np.random.default_rng(1 + draw).normal(size=(len(labels), dim)) * spread
    rows = (centres[labels] + noise).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels
