"""The worker on a node of a Ray cluster, which describes batches of photos and reports what the node lacks."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import dolglab
from dolglab.data.addresses import VARIABLE
from dolglab.data.colour import Pixels
from dolglab.data.photos import PhotoFile
from dolglab.errors import UserError
from dolglab.library.local_engine import UNKNOWN_SIZE, Described, describe_files
from dolglab.library.verifier import SpatialVerifier
from dolglab.retrieval.adapter import Adapter
from dolglab.sharing.loading import LoadedExtractor, load_extractor

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Settings:
    """A worker's settings, see `load_extractor` and `describe_files`."""

    identity: Mapping[str, Any]
    backend: str
    threads: int
    damaged: bool
    allowed: str
    local: Mapping[str, object] | None = None
    adapter: Adapter | None = None
    version: str = dolglab.__version__


class Answer(NamedTuple):
    """A node's answer to a batch: results, names of files that it cannot read, or the mistake that prevented any."""

    node: str
    described: list[Described]
    unseen: list[str]
    mistake: str | None = None


class Worker:
    """Describes batches on a node."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        os.environ[VARIABLE] = settings.allowed

    def __call__(self, batch: pa.Table) -> pa.Table:
        """A row {"files": pickled files} to {"answer": pickled `Answer`}."""
        import pyarrow as pa

        answer = self.answer(pickle.loads(batch["files"][0].as_py()))
        return pa.table({"answer": [pickle.dumps(answer)]})

    def answer(self, files: list[PhotoFile]) -> Answer:
        """This node's answer to files."""
        node, settings = socket.gethostname(), self.settings
        try:
            found = describe_files(self.loaded, files, settings.threads, settings.damaged, self.describe_locally)
            described = list(found)
        except UserError as error:
            return Answer(node, [], [], str(error))
        unread = [each.photo.name for each in described if each.photo.size == UNKNOWN_SIZE]
        return Answer(node, described, [name for name in unread if "://" not in name and not is_readable(name)])

    @cached_property
    def loaded(self) -> LoadedExtractor:
        """The network. Raises UserError if it, or this package, has another version on this node."""
        wanted = self.settings.identity
        if dolglab.__version__ != self.settings.version:
            raise UserError(f"dolglab is {dolglab.__version__} here, not {self.settings.version}")
        protocol = wanted["scales"], wanted["max_side"], self.settings.backend, wanted["colour"], wanted["decoding"]
        adapter = self.settings.adapter
        loaded = load_extractor(wanted["source"], *protocol, fingerprint=wanted["model"], threads=1, adapter=adapter)
        if loaded.identity["model"] != wanted["model"]:
            raise UserError(f"{wanted['source']} is another network here")
        return loaded

    @cached_property
    def describe_locally(self) -> Callable[[Pixels], bytes] | None:
        """Computes local features, if requested. Raises UserError if this node computes others."""
        if self.settings.local is None:
            return None
        verifier = SpatialVerifier(self.settings.identity["max_side"])
        if verifier.config() != self.settings.local:
            raise UserError(f"local features here are {verifier.method.title}, not {self.settings.local['features']}")
        return verifier.packed


def is_readable(name: str) -> bool:
    """Whether this node can read a file."""
    return os.access(name, os.R_OK)
