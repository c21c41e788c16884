"""Current names of renamed targets and keys in configurations of runs, exported models and users' own YAML files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Targets that were moved or renamed, mostly since the package was called `src`.
RENAMED = {
    "src.assemble_evaluation.network": "dolglab.commands.build_evaluation.network",
    "src.dashboard.wandb_log.WandbLog": "dolglab.training.wandb_logging.WandbLog",
    "src.data.demo_world.write.write_world": "dolglab.demo_world.write.write_world",
    "src.data.preparation.published.fetch_gldv2": "dolglab.data.preparation.fetch.fetch_gldv2",
    "src.evaluation.describer.make_describer": "dolglab.evaluation.evaluator.make_feature_extractor",
    "dolglab.evaluation.feature_extractor.make_feature_extractor": (
        "dolglab.evaluation.evaluator.make_feature_extractor"
    ),
    "src.evaluation.overlap_sets.training_images": "dolglab.evaluation.overlap.training_images",
    "src.models.local.LocalBranch": "dolglab.models.local_branch.LocalBranch",
    "src.retrieval.aggregate.asmk.ASMK": "dolglab.retrieval.asmk.ASMK",
    "src.retrieval.index_codes.OPQIndex": "dolglab.retrieval.faiss_indexes.OPQIndex",
    "src.retrieval.index_graph.HNSWIndex": "dolglab.retrieval.faiss_indexes.HNSWIndex",
    "src.retrieval.index_inverted.IVFFlatIndex": "dolglab.retrieval.faiss_indexes.IVFFlatIndex",
    "src.retrieval.index_inverted.IVFPQIndex": "dolglab.retrieval.faiss_indexes.IVFPQIndex",
    "src.retrieval.post.database.DatabaseAugmentation": "dolglab.retrieval.query_expansion.DatabaseAugmentation",
    "src.retrieval.post.expansion.AlphaQE": "dolglab.retrieval.query_expansion.AlphaQE",
    "src.retrieval.post.whitening.Whitening": "dolglab.retrieval.whitening.Whitening",
    "src.sweeps.multirun.SweepReport": "dolglab.sweeps.jobs.SweepReport",
    "src.training.checkpoints.trained_network": "dolglab.models.checkpoint.trained_network",
    "src.training.csv_log.CSVLog": "dolglab.training.csv_logger.CSVLog",
}

# Renamed keys at the root of a command's configuration, by command.
RENAMED_KEYS = {"train": {"scales": "validation_scales"}}


def current_overrides(command: str, overrides: Sequence[str]) -> list[str]:
    """The overrides of a command with current names of keys.

    >>> current_overrides("train", ["scales=[1.0]", "name=a"]), current_overrides("evaluate", ["scales=[1.0]"])
    (['validation_scales=[1.0]', 'name=a'], ['scales=[1.0]'])
    """
    names = RENAMED_KEYS.get(command, {})
    parts = [override.partition("=") for override in overrides]
    return [f"{names.get(key, key)}{sign}{value}" for key, sign, value in parts]


def with_current_keys(command: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A command's configuration with current names of keys at its root.

    If it has both names, the earlier one wins: it comes from a user's YAML, and the current one is the default.

    >>> with_current_keys("train", {"scales": [0.5], "validation_scales": [1.0]})
    {'validation_scales': [0.5]}
    """
    names = RENAMED_KEYS.get(command, {})
    earlier = {names[key]: config[key] for key in names if key in config}
    return {key: value for key, value in config.items() if key not in names} | earlier


def current_target(target: str) -> str:
    """The current name of `target`; names that did not change are returned as they are.

    >>> current_target("src.models.pooling.GeM")
    'dolglab.models.pooling.GeM'
    >>> current_target("torch.optim.SGD")
    'torch.optim.SGD'
    """
    name = target.removeprefix("src.")
    module = Path(__file__).parent.joinpath(*name.split(".")[:2])
    # os.path returns False for names that no file can have, where pathlib would raise.
    stayed = name != target and (os.path.isdir(module) or os.path.isfile(f"{module}.py"))
    return RENAMED.get(target, f"dolglab.{name}" if stayed else target)


def with_current_targets(config: Any) -> Any:
    """Plain containers in which each `_target_` has its current name.

    >>> with_current_targets([{"_target_": "src.models.pooling.GeM", "p": 3.0}])
    [{'_target_': 'dolglab.models.pooling.GeM', 'p': 3.0}]
    """
    if isinstance(config, Mapping):
        inside = {key: with_current_targets(value) for key, value in config.items()}
        target = inside.get("_target_")
        return {**inside, "_target_": current_target(target)} if isinstance(target, str) else inside
    return [with_current_targets(value) for value in config] if isinstance(config, list | tuple) else config
