"""The network of a library and its adapter, as a single network for sharing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from dolglab.errors import UserError
from dolglab.extraction.descriptor_store import fingerprint
from dolglab.library.library import Library, model_source
from dolglab.models.checkpoint import describe_run
from dolglab.models.dolg import AdaptedDescriptor
from dolglab.sharing.export import NOTHING_KNOWN, Weights, from_checkpoint, from_released
from dolglab.sharing.hub import fetch
from dolglab.sharing.networks import PRETRAINED, is_hub_folder, is_released_file, load_network


def from_library(folder: str | Path) -> Weights:
    """The network that describes a library's photos, including its adapter, if it has one.

    Raises UserError if the network is missing or has changed, and for an adapter with several scales: it is applied
    after their mean, which a single network cannot do.
    """
    with closing(Library(folder)) as library:
        identity, adapter = library.identity, library.adapter()
    if adapter is not None and identity["scales"] != [1.0]:
        raise UserError(f"{folder} is adapted after the mean of several scales, which a single network cannot do")
    source = model_source(identity)
    network = load_network(source)
    if fingerprint(network) != identity["model"]:
        raise UserError(f"{source} has changed: it is no longer the network of {folder}")
    tensors, about = _weights_of(source)
    if adapter is None:
        return tensors, about
    adapted = AdaptedDescriptor.of(network, adapter.weight, adapter.bias)
    config = dict(about["config"])
    config["model"] = {
        "_target_": "dolglab.models.dolg.AdaptedDescriptor",
        "network": config["model"],
        "dim": adapter.dim,
    }
    config["data"] = {**(config.get("data") or {}), "max_side": identity["max_side"]}
    # The head of the training is left out: its centres are in another space.
    tensors = {f"model.{name}": value for name, value in adapted.state_dict().items()}
    return tensors, {**about, "config": config, "adapter": adapter.summary()}


def _weights_of(source: str) -> Weights:
    """The weights of a network for an exported folder, by its source; see `load_network`."""
    if source in PRETRAINED:
        tensors = {f"model.{name}": value for name, value in load_network(source).state_dict().items()}
        return tensors, describe_run({"model": _pretrained_config(source)}, [], NOTHING_KNOWN)
    if is_released_file(source):
        return from_released(source)
    path = fetch(source) if is_hub_folder(source) else Path(source)
    return from_checkpoint(path.parent if path.suffix == ".onnx" else path)


def _pretrained_config(source: str) -> dict[str, Any]:
    return {
        "_target_": "dolglab.models.dolg.GlobalDescriptor",
        "backbone": {"_target_": "dolglab.models.backbone.Backbone", **PRETRAINED[source][0]},
        "pooling": {"_target_": "dolglab.models.pooling.GeM", "_partial_": True},
        "dim": None,
    }
