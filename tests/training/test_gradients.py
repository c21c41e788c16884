"""Which steps are logged."""

import lightning as L
import pytest

from dolglab.training.callbacks import is_logged


@pytest.mark.parametrize(("every", "logged"), [(1, [0, 1, 2, 3]), (2, [1, 3]), (0, [])])
def test_every_so_many_steps_are_logged_or_none(every, logged):
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, log_every_n_steps=every)
    assert [step for step in range(4) if is_logged(trainer, step)] == logged
