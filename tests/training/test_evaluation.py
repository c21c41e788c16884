"""State that several processes must share for an evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from warm_python import run_ranks

ROOT = Path(__file__).resolve().parents[2]

PROCESS = """
import sys
import torch
import torch.distributed as dist
from dolglab.training.retrieval_module import share_buffers

rank, init = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method="file://" + init, rank=rank, world_size=2)
norm = torch.nn.BatchNorm2d(2)
norm(torch.full((2, 2, 3, 3), 10.0 * (rank + 1)))
before = norm.running_mean.clone()
share_buffers(norm)
print(float(before[0]), float(norm.running_mean[0]), int(norm.num_batches_tracked))
dist.destroy_process_group()
"""


@pytest.mark.process
def test_all_processes_validate_the_first_processs_network(tmp_path: Path) -> None:
    said = run_ranks(PROCESS, str(tmp_path / "init"))
    assert [out.split() for out in said] == [["1.0", "1.0", "1"], ["2.0", "1.0", "1"]]
