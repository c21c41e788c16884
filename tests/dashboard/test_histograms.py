"""Histograms of the cosines of a step."""

import numpy as np
import torch

from dolglab.training.wandb_logging import BINS, EDGES, cosine_histograms


def test_targets_and_others_are_counted_separately():
    cosine = torch.tensor([[1.0, -1.0, 0.01], [-0.01, 0.5, 0.5], [0.01, 0.01, 0.01]])
    target, others = cosine_histograms(cosine, torch.tensor([0, 1, -1]))
    expected = np.histogram([1.0, 0.5], EDGES)[0], np.histogram([-1.0, -0.01, 0.5, 0.01, 0.01, 0.01, 0.01], EDGES)[0]
    np.testing.assert_array_equal(target, expected[0])
    np.testing.assert_array_equal(others, expected[1])


def test_a_cosine_rounded_above_one_is_counted():
    target, _ = cosine_histograms(torch.tensor([[1.0000001, 0.0]]), torch.tensor([0]))
    assert target[BINS - 1] == 1
