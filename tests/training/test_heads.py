"""Heads trained with the pair loss on balanced batches, their checkpoints, and NetVLAD's initialisation."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F

from dolglab.data.module import LandmarkDataModule
from dolglab.errors import UserError
from dolglab.losses.pairs import Head, MultiSimilarity
from dolglab.models.backbone import Backbone
from dolglab.models.checkpoint import build_model, check_resumable, describe_run, load_model
from dolglab.models.dolg import DescriptorModel, GlobalDescriptor
from dolglab.models.netvlad import NetVLAD
from dolglab.training.checkpointing import AtomicCheckpointIO, init_from
from dolglab.training.module import LandmarkModule
from dolglab.training.optim import warmup_cosine
from dolglab.training.pooling_start import start_pooling, training_features

HEADS: dict[str, dict[str, Any]] = {
    "netvlad.NetVLAD": {"clusters": 3},
    "mixvpr.MixVPR": {"map_size": [4, 4], "resize": True, "dim_channels": 4, "rows": 2, "depth": 1},
    "boq.BoQ": {"dim_channels": 64, "queries": 3, "blocks": 1, "rows": 1},
    "salad.SALAD": {"clusters": 3, "cluster_dim": 4, "token_dim": 5},
    "pooling.RegionalGeM": {},
}


def model_config(head: str) -> dict[str, Any]:
    backbone = {"_target_": "dolglab.models.backbone.Backbone", "name": "resnet10t", "reductions": [16, 16]}
    pooling = {"_target_": f"dolglab.models.{head}", "_partial_": True, **HEADS[head]}
    target = "dolglab.models.dolg.GlobalDescriptor"
    return {"_target_": target, "backbone": backbone, "pooling": pooling, "dim": None}


def folder_data(photos: Path) -> LandmarkDataModule:
    loading = {"image_size": 64, "batch_size": 8, "workers": 0, "max_side": 64, "images_per_landmark": 2}
    return LandmarkDataModule.from_folder(photos, **loading)


def landmark_module(model: DescriptorModel, data: LandmarkDataModule, config: dict[str, Any]) -> LandmarkModule:
    head: Head = MultiSimilarity(model.dim, data.num_classes)
    run = describe_run({"model": config}, data.classes, data.digests())
    optimizer = partial(torch.optim.AdamW, lr=1e-3)
    return LandmarkModule(model, head, data.augmentation, optimizer, warmup_cosine, run=run)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec")
@pytest.mark.parametrize("name", HEADS)
def test_training_by_pairs_is_restored(name: str, photos: Path, tmp_path: Path) -> None:
    config, data = model_config(name), folder_data(photos)
    module = landmark_module(build_model(config), data, config)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        plugins=[AtomicCheckpointIO()],
    )
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded, _ = load_model(tmp_path / "a.ckpt")
    image = torch.randn(1, 3, 96, 64)
    torch.testing.assert_close(loaded(image), module.model.eval()(image))
    check_resumable(tmp_path / "a.ckpt", module, module.run)


def test_weights_are_used_without_class_centres(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, data = model_config("netvlad.NetVLAD"), folder_data(photos)
    model = build_model(config)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state | {"head.weight": torch.zeros(6, model.dim)}}, tmp_path / "a.ckpt")
    init_from(build_model(config), MultiSimilarity(model.dim, 6), str(tmp_path / "a.ckpt"), data.classes)
    assert "not used" in capsys.readouterr().out


def test_class_parallel_needs_class_centres(photos: Path) -> None:
    data = folder_data(photos)
    model = build_model(model_config("netvlad.NetVLAD"))
    optimizer = partial(torch.optim.SGD, lr=0.1)
    with pytest.raises(UserError, match="class_parallel"):
        LandmarkModule(model, MultiSimilarity(8, 6), data.augmentation, optimizer, warmup_cosine, class_parallel=1.0)


def test_netvlad_is_initialised_by_k_means_over_training_crops(photos: Path) -> None:
    """Each centre is the mean of its nearest features, in every process."""
    data = folder_data(photos)
    backbone = Backbone("resnet10t", pretrained=False, reductions=(16, 16))
    models = [GlobalDescriptor(backbone, partial(NetVLAD, clusters=4), dim=None) for _ in range(2)]
    for model in models:
        start_pooling(model, data)
    centres = models[0].pooling.centroids.detach()
    torch.testing.assert_close(models[1].pooling.centroids.detach(), centres)
    samples = training_features(models[0], data)
    torch.testing.assert_close(samples.norm(dim=1), torch.ones(len(samples)))
    nearest = torch.cdist(samples, centres).argmin(1)
    for cluster, centre in enumerate(centres):
        assert float((samples[nearest == cluster].mean(0) - centre).norm()) < 0.1 * float(centre.norm())
    shares = models[0].pooling.conv(samples.T[None, :, :, None]).softmax(1)[0, :, :, 0].T
    agreeing = shares.argmax(1) == (samples @ F.normalize(centres).T).argmax(1)
    assert bool(agreeing.all())
    assert models[0].training


def test_clusters_need_features(photos: Path) -> None:
    data = folder_data(photos)
    backbone = Backbone("resnet10t", pretrained=False, reductions=(16, 16))
    with pytest.raises(UserError, match=r"clusters=100000"):
        start_pooling(GlobalDescriptor(backbone, partial(NetVLAD, clusters=100_000), dim=None), data)
