"""What a node of a Ray cluster does: it describes batches of photos, and says what it lacks for that."""

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
    """What a worker describes photos with: see `load_extractor` and `describe_files`."""

    identity: Mapping[str, Any]
    backend: str
    threads: int
    damaged: bool
    allowed: str
    local: Mapping[str, object] | None = None
    adapter: Adapter | None = None
    version: str = dolglab.__version__


class Answer(NamedTuple):
    """What a node says of a batch: what became of its files, which of them it does not see, or why there is nothing."""

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
        """What this node says of files."""
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
        """The network. Raises UserError where it, or this package, is another one here."""
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
        """Gives local features, where they are wanted. Raises UserError where this node makes others."""
        if self.settings.local is None:
            return None
        verifier = SpatialVerifier(self.settings.identity["max_side"])
        if verifier.config() != self.settings.local:
            raise UserError(
                f"local features are {verifier.method.title}'s here, not {self.settings.local['features']}'s"
            )
        return verifier.packed


def is_readable(name: str) -> bool:
    """Whether this node sees a file, and may read it."""
    return os.access(name, os.R_OK)
