"""DDP's exchange of gradients, counted."""

import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook


class CountedDDP(DDPStrategy):
    """Lightning's, which hands communication hooks on to GPUs only."""

    def configure_ddp(self) -> None:
        """Once DDP is there, have it use `counted`."""
        super().configure_ddp()
        self.model.register_comm_hook(None, counted)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]


def counted(
    group: dist.ProcessGroup | None,
    bucket: dist.GradBucket,  # pyright: ignore[reportPrivateImportUsage]
) -> torch.futures.Future[torch.Tensor]:
    """All-reduce as DDP does it; the first process notes each bucket's bytes, and when it was begun and done."""
    size, begun = bucket.buffer().nbytes, time.perf_counter()
    future = allreduce_hook(group or dist.group.WORLD, bucket)  # pyright: ignore[reportArgumentType]
    if dist.get_rank():
        return future

    def note(done: torch.futures.Future[torch.Tensor]) -> torch.Tensor:
        with Path(os.environ["EXCHANGES"]).open("a") as file:
            file.write(f"{size} {begun} {time.perf_counter()}\n")
        return done.value()[0]

    return future.then(note)
