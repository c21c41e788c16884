"""A plan compared with the work that is then done."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
import torch

from dolglab.data.folder import folder_benchmark
from dolglab.evaluation.evaluator import Evaluator, FeatureExtractor
from dolglab.evaluation.plan import plan, total
from dolglab.extraction.extract import Images
from dolglab.extraction.extractor import Extractor
from dolglab.extraction.rootsift import RootSIFT
from dolglab.models.backbone import Backbone
from dolglab.models.dolg import GlobalDescriptor
from dolglab.retrieval.pipeline import RetrievalPipeline
from dolglab.retrieval.rerank.spatial import Spatial

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*")


def test_a_plan_counts_missing_features_and_leaves_no_files(tmp_path: Path, photos: Path) -> None:
    benchmark = folder_benchmark(photos)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    torch.manual_seed(0)
    model = GlobalDescriptor(Backbone("test_resnet.r160_in1k", pretrained=False), dim=16).eval()
    extractor = FeatureExtractor(
        trainer, Images(), tmp_path / "store", Extractor(model, (1.0,)), RootSIFT(max_features=20)
    )
    evaluator = Evaluator(extractor, RetrievalPipeline(rerank=Spatial(depth=3)))
    descriptors, local = plan(evaluator, benchmark)
    assert not (tmp_path / "store").exists()
    assert (descriptors.images, descriptors.described, descriptors.todo) == (60, 0, 60)
    assert descriptors.tried
    assert descriptors.bytes == 64
    # For each of 60 queries, the query and three answers are described, at most 60 images.
    assert (local.images, local.todo) == (60, 60)
    assert local.bytes > 0
    assert local.seconds > 0
    assert total([descriptors, local, local]).startswith("in all 120 images")
    assert evaluator.run(benchmark) is not None
    made, found = plan(evaluator, benchmark)
    assert (made.described, made.todo, made.tried) == (60, 0, False)
    assert made.seconds == extractor.descriptor_target(benchmark).seconds_per_image()
    assert found.described == len(list(found.folder.glob("*/*.safetensors")))
    assert total([made]).startswith("in all 0 images")
