"""What several processes must share when they evaluate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROCESS = """
import sys
import torch
import torch.distributed as dist
from dolglab.training.retrieval_module import share_buffers

init, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method="file://" + init, rank=rank, world_size=2)
norm = torch.nn.BatchNorm2d(2)
norm(torch.full((2, 2, 3, 3), 10.0 * (rank + 1)))
before = norm.running_mean.clone()
share_buffers(norm)
print(float(before[0]), float(norm.running_mean[0]), int(norm.num_batches_tracked))
dist.destroy_process_group()
"""


@pytest.mark.process
def test_all_processes_validate_the_first_ones_network(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROCESS, str(tmp_path / "init"), str(rank)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0].split() for process in processes]
    assert said == [["1.0", "1.0", "1"], ["2.0", "1.0", "1"]]
