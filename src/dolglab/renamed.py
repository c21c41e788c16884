"""Targets of configurations that have another name now: a run's, an exported model's, or somebody's own YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED = {
    "src.assemble_evaluation.network": "dolglab.commands.build_evaluation.network",
    "src.dashboard.wandb_log.WandbLog": "dolglab.training.wandb_logging.WandbLog",
    "src.data.augment.Augmentation": "dolglab.data.augment.Augmentation",
    "src.data.demo_world.write.write_world": "dolglab.demo_world.write.write_world",
    "src.data.folder.folder_benchmark": "dolglab.data.folder.folder_benchmark",
    "src.data.gldv2_benchmarks.gldv2_recognition": "dolglab.data.gldv2_benchmarks.gldv2_recognition",
    "src.data.gldv2_benchmarks.gldv2_retrieval": "dolglab.data.gldv2_benchmarks.gldv2_retrieval",
    "src.data.module.LandmarkDataModule.from_folder": "dolglab.data.module.LandmarkDataModule.from_folder",
    "src.data.module.LandmarkDataModule.from_gldv2": "dolglab.data.module.LandmarkDataModule.from_gldv2",
    "src.data.preparation.pack.pack_gldv2": "dolglab.data.preparation.pack.pack_gldv2",
    "src.data.preparation.published.fetch_gldv2": "dolglab.data.preparation.fetch.fetch_gldv2",
    "src.data.preparation.revisited.fetch_benchmark": "dolglab.data.preparation.revisited.fetch_benchmark",
    "src.data.preparation.revisited.fetch_distractors": "dolglab.data.preparation.revisited.fetch_distractors",
    "src.data.preparation.scan.scan_gldv2": "dolglab.data.preparation.scan.scan_gldv2",
    "src.data.revisited.revisited_benchmark": "dolglab.data.revisited.revisited_benchmark",
    "src.evaluation.describer.make_describer": "dolglab.evaluation.feature_extractor.make_feature_extractor",
    "src.evaluation.overlap.Rule": "dolglab.evaluation.overlap.Rule",
    "src.evaluation.overlap.find_overlap": "dolglab.evaluation.overlap.find_overlap",
    "src.evaluation.overlap_sets.training_images": "dolglab.evaluation.overlap.training_images",
    "src.extraction.local_features.NetworkLocalFeatures": "dolglab.extraction.local_features.NetworkLocalFeatures",
    "src.extraction.rootsift.RootSIFT": "dolglab.extraction.rootsift.RootSIFT",
    "src.losses.local.LocalLoss": "dolglab.losses.local.LocalLoss",
    "src.losses.margin.ArcFace": "dolglab.losses.margin.ArcFace",
    "src.losses.margin.CosFace": "dolglab.losses.margin.CosFace",
    "src.losses.margin.CurricularFace": "dolglab.losses.margin.CurricularFace",
    "src.losses.margin.DynamicArcFace": "dolglab.losses.margin.DynamicArcFace",
    "src.losses.margin.Softmax": "dolglab.losses.margin.Softmax",
    "src.losses.margin.SubCenterArcFace": "dolglab.losses.margin.SubCenterArcFace",
    "src.models.backbone.Backbone": "dolglab.models.backbone.Backbone",
    "src.models.delg.DELG": "dolglab.models.delg.DELG",
    "src.models.delg.LocalHead": "dolglab.models.delg.LocalHead",
    "src.models.dolg.DOLG": "dolglab.models.dolg.DOLG",
    "src.models.dolg.GlobalDescriptor": "dolglab.models.dolg.GlobalDescriptor",
    "src.models.fusion.concat_fusion": "dolglab.models.fusion.concat_fusion",
    "src.models.fusion.hadamard_fusion": "dolglab.models.fusion.hadamard_fusion",
    "src.models.fusion.orthogonal_fusion": "dolglab.models.fusion.orthogonal_fusion",
    "src.models.local.LocalBranch": "dolglab.models.local_branch.LocalBranch",
    "src.models.pooling.AvgPool": "dolglab.models.pooling.AvgPool",
    "src.models.pooling.GeM": "dolglab.models.pooling.GeM",
    "src.models.pooling.MaxPool": "dolglab.models.pooling.MaxPool",
    "src.models.pooling.RMAC": "dolglab.models.pooling.RMAC",
    "src.retrieval.aggregate.asmk.ASMK": "dolglab.retrieval.asmk.ASMK",
    "src.retrieval.index.FlatIndex": "dolglab.retrieval.index.FlatIndex",
    "src.retrieval.index_codes.OPQIndex": "dolglab.retrieval.faiss_indexes.OPQIndex",
    "src.retrieval.index_graph.HNSWIndex": "dolglab.retrieval.faiss_indexes.HNSWIndex",
    "src.retrieval.index_inverted.IVFFlatIndex": "dolglab.retrieval.faiss_indexes.IVFFlatIndex",
    "src.retrieval.index_inverted.IVFPQIndex": "dolglab.retrieval.faiss_indexes.IVFPQIndex",
    "src.retrieval.post.database.DatabaseAugmentation": "dolglab.retrieval.query_expansion.DatabaseAugmentation",
    "src.retrieval.post.expansion.AlphaQE": "dolglab.retrieval.query_expansion.AlphaQE",
    "src.retrieval.post.whitening.Whitening": "dolglab.retrieval.whitening.Whitening",
    "src.retrieval.rerank.diffusion.Diffusion": "dolglab.retrieval.rerank.diffusion.Diffusion",
    "src.retrieval.rerank.neighbours.Neighbours": "dolglab.retrieval.rerank.neighbours.Neighbours",
    "src.retrieval.rerank.spatial.Spatial": "dolglab.retrieval.rerank.spatial.Spatial",
    "src.sweeps.multirun.SweepReport": "dolglab.sweeps.jobs.SweepReport",
    "src.training.checkpoints.trained_network": "dolglab.models.checkpoint.trained_network",
    "src.training.csv_log.CSVLog": "dolglab.training.csv_logger.CSVLog",
    "src.training.optim.parameter_groups": "dolglab.training.optim.parameter_groups",
    "src.training.optim.warmup_cosine": "dolglab.training.optim.warmup_cosine",
}


def current_target(target: str) -> str:
    """The name that what `target` named has today; other names stay as they are.

    >>> current_target("src.models.pooling.GeM")
    'dolglab.models.pooling.GeM'
    >>> current_target("torch.optim.SGD")
    'torch.optim.SGD'
    """
    return RENAMED.get(target, target)


def with_current_targets(config: Any) -> Any:
    """Plain containers with each `_target_` named as today.

    >>> with_current_targets([{"_target_": "src.models.pooling.GeM", "p": 3.0}])
    [{'_target_': 'dolglab.models.pooling.GeM', 'p': 3.0}]
    """
    if isinstance(config, Mapping):
        inside = {key: with_current_targets(value) for key, value in config.items()}
        target = inside.get("_target_")
        return {**inside, "_target_": current_target(target)} if isinstance(target, str) else inside
    return [with_current_targets(value) for value in config] if isinstance(config, list | tuple) else config
