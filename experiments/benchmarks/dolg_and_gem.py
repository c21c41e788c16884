"""Training steps of DOLG and of GeM, its global branch, with the settings of `experiment=demo`: images per second.

    PYTHONPATH=. python experiments/benchmarks/dolg_and_gem.py

Both alternate on batches of 32 random images of 144 px with 120 landmarks, with the backbone frozen (eval mode, no
gradient) and trained; medians. Loader and augmentation, which are the same for both, are not included.
"""

from __future__ import annotations

import statistics
import time

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from dolglab.commands.cli_errors import config_folder

ROUNDS, BATCH, CLASSES = 15, 32, 120
MODELS = ("gem_light", "dolg_light")


class Trainee:
    """A network with its head and optimizer."""

    def __init__(self, model: str) -> None:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            config = compose("train", ["experiment=demo", f"model={model}"])
        torch.manual_seed(0)
        self.model = instantiate(config.model).to(memory_format=torch.channels_last)
        self.head = instantiate(config.margin, dim=self.model.dim, num_classes=CLASSES)
        self.size: int = config.data.image_size
        self.parameters = [p for p in (*self.model.parameters(), *self.head.parameters()) if p.requires_grad]
        self.optimizer = instantiate(config.optim.optimizer)(self.parameters)

    def step(self, images: torch.Tensor, labels: torch.Tensor, frozen: bool) -> float:
        """Seconds of forward, backward and update."""
        self.model.backbone.train(not frozen)
        started = time.perf_counter()
        with torch.set_grad_enabled(not frozen):
            features = self.model.backbone(images)
        self.head.loss(self.model.describe(features), labels).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    trainees = {name: Trainee(name) for name in MODELS}
    size = trainees[MODELS[0]].size
    images = torch.randn(BATCH, size, size, 3).permute(0, 3, 1, 2)
    labels = torch.randint(0, CLASSES, (BATCH,))
    for name, trainee in trainees.items():
        print(f"{name}: {sum(p.numel() for p in trainee.parameters) / 1e6:.2f} M parameters are trained, head included")
    for frozen in (True, False):
        seconds: dict[str, list[float]] = {name: [] for name in MODELS}
        for turn in range(ROUNDS + 2):
            for name, trainee in trainees.items():
                taken = trainee.step(images, labels, frozen)
                if turn >= 2:
                    seconds[name].append(taken)
        gem, dolg = (seconds[name] for name in MODELS)
        share = statistics.median(a / b for a, b in zip(gem, dolg, strict=True))
        rates = ", ".join(f"{name} {BATCH / statistics.median(seconds[name]):.1f}" for name in MODELS)
        print(f"{size} px, backbone {'frozen' if frozen else 'trained'}: images/s {rates}: {share:.2f} times GeM's")


if __name__ == "__main__":
    main()
