"""Export a model: a folder with tensors, their description, a model card and ONNX files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from dolglab.errors import UserError
from dolglab.extraction.describer import ONNX_FILE
from dolglab.io import atomic_path, sha256_of, write_text
from dolglab.models.backbone import FeatureBackbone
from dolglab.models.checkpoint import (
    ABOUT,
    RUN_KEY,
    TENSORS,
    describe_run,
    load_model,
    read_checkpoint,
    selection_of,
    tensor_file,
    trained_on,
    value_at,
)
from dolglab.models.dolg import DescriptorModel
from dolglab.models.released import read_released, released_config
from dolglab.models.released_kinds import KINDS, read_kind
from dolglab.results.card import read_card
from dolglab.results.comparison_tables import summarize
from dolglab.results.table_formats import to_markdown
from dolglab.sharing.hub import check_push, push_folder
from dolglab.sharing.networks import PREFIX
from dolglab.sharing.onnx_export import INPUT, INT8_FILE, OUTPUT, TOLERANCE, onnx_metadata, write_int8, write_onnx
from dolglab.templates import template

CARD, UNKNOWN = "README.md", "not known"
RECIPE = ("trainer.max_epochs", "trainer.max_steps", "data.batch_size", "data.image_size", "data.sampling", "weights")
GROUPS = ("model", "model.pooling", "model.local", "model.fusion", "margin", "optim.optimizer", "optim.schedule")
NOTHING_KNOWN: dict[str, Any] = {"training": None, "validation": {}, "test": {}}
# Tensors of a network and its head, by the names in a checkpoint, and their description (`describe_run`).
Weights = tuple[Mapping[str, Tensor], Mapping[str, Any]]


def export(
    out: str,
    *,
    checkpoint: str | None = None,
    released: str | None = None,
    library: str | None = None,
    cards: Sequence[str] = (),
    licence: str | None = None,
    onnx: bool = False,
    normalised_input: bool = False,
    int8: bool = False,
    calibrate: str | None = None,
    push: str | None = None,
    private: bool = False,
) -> Path:
    """Write a model's folder, push it if requested, and print what was done; returns the folder.

    The arguments are the options of `dolglab export --help`. Raises UserError for a user's mistake.
    """
    if sum(source is not None for source in (checkpoint, released, library)) != 1:
        raise UserError("give exactly one of --checkpoint FILE, --released FILE and --library FOLDER")
    if (normalised_input or int8) and not onnx:
        raise UserError("--normalised-input and --int8 need --onnx")
    if int8 and (calibrate is None or normalised_input):
        raise UserError(
            "--int8 needs --calibrate FOLDER with photos like those to be described, and excludes --normalised-input"
        )
    if push:
        check_push(push)
    if library is not None:
        from dolglab.sharing.from_library import from_library

        tensors, about = from_library(library)
    else:
        tensors, about = from_checkpoint(checkpoint) if checkpoint else from_released(str(released))
    with new_folder(out) as folder:
        write_model(folder, tensors, about)
        found = read_cards(cards, checkpoint or released or str(folder / TENSORS), folder / TENSORS)
        network, _ = load_model(folder)
        files = _write_onnx_files(network, folder, normalised_input, calibrate if int8 else None) if onnx else []
        name = push or Path(out).resolve().name
        loaded_by = f"{PREFIX}{name}" if push else name
        write_text(folder / CARD, model_card(network, about, name, loaded_by, licence, found, files))
    print(f"model: {out} ({len(found)} result cards)")
    if push:
        print(f"pushed: {push_folder(out, push, private)}")
    return Path(out)


def _write_onnx_files(
    network: DescriptorModel, folder: Path, normalised: bool, calibrate: str | None
) -> list[tuple[str, str]]:
    """Write an ONNX file, and an int8 one if there are photos for it; returns names and descriptions for the card."""
    worst = write_onnx(network, folder / ONNX_FILE, normalised)
    about = onnx_metadata(network, normalised)
    print(f"{ONNX_FILE}: differs from torch by {worst:.1e} at most")
    files = [
        (
            ONNX_FILE,
            f"`{INPUT}` {about['input']}, to `{OUTPUT}` {about['output']}; within {TOLERANCE:.0e} of torch. "
            f"Mean {about['mean']}, std {about['std']} of pixels in 0..1.",
        )
    ]
    if calibrate is not None:
        photos = write_int8(folder / ONNX_FILE, folder / INT8_FILE, calibrate)
        print(f"{INT8_FILE}: ranges of {photos} photos in {calibrate}; its descriptors are not those of the model")
        files.append((INT8_FILE, f"the same with 8-bit convolutions, ranges from {photos} photos; other descriptors."))
    return files


def from_checkpoint(path: str | Path) -> Weights:
    """The weights of a run's checkpoint, without its optimizer. Raises UserError like `load_model`."""
    load_model(path)
    checkpoint = read_checkpoint(path)
    return checkpoint["state_dict"], {**checkpoint[RUN_KEY], "selected": bool(selection_of(path))}


def from_released(source: str | Path) -> Weights:
    """Released weights: those of DOLG, whose classes have no known landmarks, or KIND:FILE of `KINDS`.

    Raises UserError like `read_released` and `read_kind`.
    """
    kind, _, file = str(source).partition(":")
    if kind in KINDS:
        found = read_kind(kind, file)
        protocol = found.protocol
        config = {"model": found.config, "data": {"max_side": protocol.max_side}, "test_scales": list(protocol.scales)}
        config |= {"resize": protocol.resize, "scale_pooling": protocol.scale_pooling}
        return {f"model.{key}": value for key, value in found.model.items()}, describe_run(config, [], NOTHING_KNOWN)
    released = read_released(source)
    tensors = {f"model.{key}": value for key, value in released.model.items()}
    tensors |= {"head.weight": released.centres, "head.mean_cosine": released.mean_cosine}
    config = {"model": released_config(released.backbone, released.aspp)}
    return tensors, describe_run(config, [], NOTHING_KNOWN)


@contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` when everything is written, and is removed if something fails.

    Raises UserError if `out` exists and is not empty.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty: name another folder")
    with atomic_path(out) as aside:
        aside.mkdir()
        yield aside


def write_model(folder: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and their description; `load_model` reads the folder.

    Raises UserError if the disk is full.
    """
    try:
        # One tensor may have several names; safetensors requires separate memory for each.
        save_file({key: value.detach().clone().contiguous() for key, value in tensors.items()}, folder / TENSORS)
    except SafetensorError as error:
        # safetensors converts the system's errors into its own.
        raise UserError(f"{TENSORS} cannot be written: {error}") from error
    (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    # safetensors writes files that only their owner may read.
    (folder / TENSORS).chmod((folder / ABOUT).stat().st_mode)


def model_card(
    network: DescriptorModel,
    about: Mapping[str, Any],
    title: str,
    load: str,
    licence: str | None,
    cards: Sequence[Mapping[str, Any]],
    files: Sequence[tuple[str, str]],
) -> str:
    """The model card as Markdown with the hub's front matter; unknown information is marked as such.

    Args:
        about: the description of the training run (see `describe_run`).
        load: the argument of `dolglab.load`.
        licence: licence of the weights, if stated.
        cards: result cards of these weights.
        files: names and descriptions of additional files in the folder.
    """
    config = _without_adapter(about["config"])
    numbers = to_markdown([summarize(cards)]).strip() if cards else ""
    return template(Path(__file__).with_name("card.md.j2")).render(
        title=title,
        load=load,
        licence=licence,
        files=files,
        dim=network.dim,
        architecture=f"{type(network).__name__} on {network.backbone.name}",
        base_model=_base_model(config),
        started_from=_started_from(network.backbone, config),
        data=list(_data(about)),
        recipe=[*_recipe(config), *([("adapter", about["adapter"])] if "adapter" in about else [])],
        numbers=numbers,
    )


def read_cards(given: Sequence[str], checkpoint: str, written: Path) -> list[dict[str, Any]]:
    """The given result cards or, without any, that of the checkpoint's run if it has one.

    A card may also name the tensors of the exported folder, `written`, by their digest.
    Raises UserError for a card that cannot be read, or that belongs to other weights.
    """
    files = [written, *([tensor_file(checkpoint)] if Path(checkpoint).exists() else [])]
    digests = {sha256_of(file) for file in files}
    found = Path(checkpoint).resolve().parent.parent / "card.json"
    cards = {path: read_card(Path(path)) for path in (given or [str(found)] if found.is_file() else given)}
    ours = {path: (card["checkpoint"] or {}).get("sha256") in digests for path, card in cards.items()}
    if given and not all(ours.values()):
        wrong = next(path for path, same in ours.items() if not same)
        raise UserError(f"{wrong} was measured with other weights: use cards of this checkpoint")
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
    """The most informative lines of a run's configuration."""
    for group in GROUPS:
        if isinstance(found := value_at(config, group), Mapping):
            plain = [
                f"{key}={value}"
                for key, value in found.items()
                if not key.startswith("_") and isinstance(value, bool | int | float | str | list)
            ]
            name = (found.get("_target_") or "").rpartition(".")[2]
            yield group, " ".join([name, *plain]).strip()
    for key in RECIPE:
        if (value := value_at(config, key)) is not None:
            yield key, str(value)


def _without_adapter(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of the network without its adapters."""
    inside = config["model"].get("network")
    return config if inside is None else _without_adapter({**config, "model": inside})


def _started_from(backbone: FeatureBackbone, config: Mapping[str, Any]) -> str:
    if (given := config.get("weights")) is not None:
        return f"{given}: not stated"
    if not value_at(config, "model.backbone.pretrained") and not value_at(config, "model.backbone.weights"):
        return UNKNOWN if "trainer" not in config else "none: it was trained from random weights"
    return f"{value_at(config, 'model.backbone.weights') or backbone.name}: {backbone.licence or 'not stated'}"


def _base_model(config: Mapping[str, Any]) -> str | None:
    """The hub's name of the initial weights of training, if they have one."""
    backbone = config["model"]["backbone"]
    fetched = backbone.get("pretrained") and not backbone.get("weights") and not config.get("weights")
    return f"timm/{backbone['name']}" if fetched else None
