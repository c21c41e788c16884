"""The steps at which the gradient norm is logged."""

import lightning as L
import pytest

from dolglab.training.callbacks import is_logged


@pytest.mark.parametrize(("every", "logged"), [(1, [0, 1, 2, 3]), (2, [1, 3]), (0, [])])
def test_gradient_norms_are_logged_at_the_interval_or_never(every, logged):
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, log_every_n_steps=every)
    assert [step for step in range(4) if is_logged(trainer, step)] == logged
