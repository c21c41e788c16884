"""The model card: what a shared model is, what it was trained on, how, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dolglab.errors import UserError
from dolglab.io import sha256_of
from dolglab.models.backbone import FeatureBackbone
from dolglab.models.checkpoint import tensor_file, trained_on
from dolglab.models.dolg import DescriptorModel
from dolglab.results.card import read_card
from dolglab.results.comparison_tables import summarize
from dolglab.results.table_formats import to_markdown
from dolglab.templates import template

CARD, UNKNOWN = "README.md", "not known"
RECIPE = ("trainer.max_epochs", "trainer.max_steps", "data.batch_size", "data.image_size", "data.sampling", "weights")
GROUPS = ("model", "model.pooling", "model.local", "model.fusion", "margin", "optim.optimizer", "optim.schedule")


def model_card(
    network: DescriptorModel,
    about: Mapping[str, Any],
    title: str,
    load: str,
    licence: str | None,
    cards: Sequence[Mapping[str, Any]],
    files: Sequence[tuple[str, str]],
) -> str:
    """The card as Markdown with the hub's front matter; what is not known is said to be so.

    Args:
        about: how the run that trained it describes itself (see `describe_run`).
        load: what `dolglab.load` takes.
        licence: of the weights, where somebody states one.
        cards: result cards of these weights.
        files: names of further files of the folder, and what they are.
    """
    numbers = to_markdown([summarize(cards)]).strip() if cards else ""
    return template(Path(__file__).with_name("card.md.j2")).render(
        title=title,
        load=load,
        licence=licence,
        files=files,
        dim=network.dim,
        architecture=f"{type(network).__name__} on {network.backbone.name}",
        base_model=_base_model(about["config"]),
        started_from=_started_from(network.backbone, about["config"]),
        data=list(_data(about)),
        recipe=list(_recipe(about["config"])),
        numbers=numbers,
    )


def read_cards(given: Sequence[str], checkpoint: str, written: Path) -> list[dict[str, Any]]:
    """The result cards that are given, or that of the run whose checkpoint this is, where that was measured.

    A card may also name the tensors of the exported folder, `written`, by their digest.
    Raises UserError for a card that cannot be read, or of other weights.
    """
    files = [written, *([tensor_file(checkpoint)] if Path(checkpoint).exists() else [])]
    digests = {sha256_of(file) for file in files}
    found = Path(checkpoint).resolve().parent.parent / "card.json"
    cards = {path: read_card(Path(path)) for path in (given or [str(found)] if found.is_file() else given)}
    ours = {path: (card["checkpoint"] or {}).get("sha256") in digests for path, card in cards.items()}
    if given and not all(ours.values()):
        wrong = next(path for path, same in ours.items() if not same)
        raise UserError(f"{wrong} was measured with other weights than these: give cards of this very checkpoint")
    return [card for path, card in cards.items() if ours[path]]


def _data(about: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    trained, config = trained_on(about), about["config"].get("data") or {}
    yield "set", Path(config["root"]).name if config.get("root") else UNKNOWN
    yield "images trained on", trained["images"] or UNKNOWN
    yield "landmarks trained on", trained["landmarks"] or UNKNOWN
    yield "digest of the list of images", trained["list"] or UNKNOWN
    yield "digest of the landmarks", trained["classes"] if about["classes"] else UNKNOWN
    chosen = "chosen on" if about.get("selected", True) else "validated, and not chosen, on"
    for name, digest in about["data"]["validation"].items():
        yield chosen, f"{name} (digest {digest})"


def _recipe(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines of a run's configuration that tell most."""
    for group in GROUPS:
        if isinstance(found := _at(config, group), Mapping):
            plain = [
                f"{key}={value}"
                for key, value in found.items()
                if not key.startswith("_") and isinstance(value, bool | int | float | str | list)
            ]
            name = (found.get("_target_") or "").rpartition(".")[2]
            yield group, " ".join([name, *plain]).strip()
    for key in RECIPE:
        if (value := _at(config, key)) is not None:
            yield key, str(value)


def _started_from(backbone: FeatureBackbone, config: Mapping[str, Any]) -> str:
    if (given := config.get("weights")) is not None:
        return f"{given}: not stated"
    if not _at(config, "model.backbone.pretrained") and not _at(config, "model.backbone.weights"):
        return UNKNOWN if "trainer" not in config else "none: it was trained from random weights"
    return f"{_at(config, 'model.backbone.weights') or backbone.name}: {backbone.licence or 'not stated'}"


def _base_model(config: Mapping[str, Any]) -> str | None:
    """The hub's name of the weights that training started from, where it has one."""
    backbone = config["model"]["backbone"]
    fetched = backbone.get("pretrained") and not backbone.get("weights") and not config.get("weights")
    return f"timm/{backbone['name']}" if fetched else None


def _at(config: Mapping[str, Any], key: str) -> Any:
    found: Any = config
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
