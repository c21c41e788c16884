"""What a stored configuration may build: the networks of this package and of those that add to it, by their names."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from torch import nn

import dolglab.models
from dolglab.errors import UserError
from dolglab.models import fusion
from dolglab.renamed import current_target

# An installed package adds the networks of a module by an entry point of this group, such as
# `[project.entry-points."dolglab.models"]` with `mine = "my_package.networks"` in its pyproject.toml.
ENTRY_POINT_GROUP = "dolglab.models"


def resolve_target(target: str) -> Callable[..., Any]:
    """The class or function that a target names, wherever in the package it stands now.

    What counts is the last part of the name, so that a checkpoint outlives a move from file to file; renamed classes
    stand in `dolglab.renamed`. Nothing is imported by the name itself.

    >>> resolve_target("src.models.pooling.GeM").__name__
    'GeM'

    Raises UserError for a name that is no network's.
    """
    found = registered_networks().get(current_target(target).rpartition(".")[2])
    if found is None:
        raise UserError(
            f"{target} is no network of dolglab.models: was it renamed (src/dolglab/renamed.py), or is it one that a "
            "package adds that is not installed here?"
        )
    return found


@functools.cache
def registered_networks() -> Mapping[str, Callable[..., Any]]:
    """Every nn.Module of `dolglab.models`, every fusion, and those of modules that entry points name; by class name.

    Raises UserError for two of one name.
    """
    own = [
        importlib.import_module(f"{dolglab.models.__name__}.{m.name}")
        for m in pkgutil.iter_modules(dolglab.models.__path__)
    ]
    found: dict[str, Callable[..., Any]] = {}
    for module in [*own, *(entry.load() for entry in entry_points(group=ENTRY_POINT_GROUP))]:
        for name, value in vars(module).items():
            if _is_network(value, module) and found.setdefault(name, value) is not value:
                raise UserError(f"{module.__name__}.{name} and {found[name].__module__}.{name} have one name")
    return found


def _is_network(value: Any, module: ModuleType) -> bool:
    if getattr(value, "__module__", None) != module.__name__:
        return False
    if inspect.isclass(value):
        return issubclass(value, nn.Module)
    return module is fusion and inspect.isfunction(value) and not value.__name__.startswith("_")
