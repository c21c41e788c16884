"""DDP's exchange of gradients, counted."""

import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook


class CountedDDP(DDPStrategy):
    """Lightning's strategy, which passes communication hooks to DDP on GPUs only."""

    def configure_ddp(self) -> None:
        """Register `counted` after DDP is set up."""
        super().configure_ddp()
        self.model.register_comm_hook(None, counted)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]


def counted(
    group: dist.ProcessGroup | None,
    bucket: dist.GradBucket,  # pyright: ignore[reportPrivateImportUsage]
) -> torch.futures.Future[torch.Tensor]:
    """All-reduce as DDP does it; the first process records each bucket's bytes, start and end."""
    size, begun = bucket.buffer().nbytes, time.perf_counter()
    future = allreduce_hook(group or dist.group.WORLD, bucket)  # pyright: ignore[reportArgumentType]
    if dist.get_rank():
        return future

    def note(done: torch.futures.Future[torch.Tensor]) -> torch.Tensor:
        with Path(os.environ["EXCHANGES"]).open("a") as file:
            file.write(f"{size} {begun} {time.perf_counter()}\n")
        return done.value()[0]

    return future.then(note)
