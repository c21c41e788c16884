"""The command that exports: what goes into the folder, and in which order."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from dolglab.errors import UserError
from dolglab.io import write_text
from dolglab.models.checkpoint import ABOUT, RUN_KEY, TENSORS, describe_run, load_model, read_checkpoint, selection_of
from dolglab.models.dolg import DescriptorModel
from dolglab.models.released import read_released, released_config
from dolglab.sharing.hub import PREFIX, check_push, push
from dolglab.sharing.model_card import CARD, Told, model_card, read_cards

NOTHING_KNOWN: dict[str, Any] = {"training": None, "validation": {}, "test": {}}


@dataclass(frozen=True)
class Shared:
    """What is shared.

    Attributes:
        tensors: of the network and of the head it was trained with, by a checkpoint's names.
        about: what they are (see `describe_run`).
        source: what a person named.
    """

    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]
    source: str


def from_checkpoint(path: str | Path) -> Shared:
    """What a run's checkpoint holds; nothing of its optimizer goes along. Raises UserError as `load_model`."""
    load_model(path)
    checkpoint = read_checkpoint(path)
    about = {**checkpoint[RUN_KEY], "selected": bool(selection_of(path))}
    return Shared(checkpoint["state_dict"], about, str(path))


def from_released(source: str | Path) -> Shared:
    """What a released checkpoint holds; which landmark is which class is not known. Raises as `read_released`."""
    released = read_released(source)
    tensors = {f"model.{key}": value for key, value in released.model.items()}
    tensors |= {"head.weight": released.centres, "head.mean_cosine": released.mean_cosine}
    config = {"model": released_config(released.backbone, released.aspp)}
    return Shared(tensors, describe_run(config, [], NOTHING_KNOWN), str(source))


@contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """A folder to write to, which is called `out` once all is written, and is gone where something fails.

    Raises UserError where `out` is there and not empty.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty: name another folder")
    aside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        aside.mkdir(parents=True)
        yield aside
        os.replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_model(folder: Path, shared: Shared) -> None:
    """Write tensors and what they are; `load_model` reads the folder."""
    # One tensor may stand in for several names; safetensors wants each its own memory.
    save_file({key: value.detach().clone().contiguous() for key, value in shared.tensors.items()}, folder / TENSORS)
    (folder / ABOUT).write_text(json.dumps(shared.about, indent=1) + "\n", encoding="utf-8")
    # It writes what its owner alone may read.
    (folder / TENSORS).chmod((folder / ABOUT).stat().st_mode)


@dataclass(frozen=True)
class Request:
    """What a person asked for: see `dolglab export`."""

    out: str
    checkpoint: str | None = None
    released: str | None = None
    cards: Sequence[str] = ()
    licence: str | None = None
    onnx: bool = False
    normalised_input: bool = False
    int8: bool = False
    calibrate: str | None = None
    push: str | None = None
    private: bool = False


def export(asked: Request) -> Path:
    """Write the folder, and push it where that was asked for. Raises UserError for a person's mistake."""
    _check(asked)
    shared = from_checkpoint(asked.checkpoint) if asked.checkpoint else from_released(str(asked.released))
    with new_folder(asked.out) as folder:
        write_model(folder, shared)
        cards = read_cards(asked.cards, shared.source, folder / TENSORS)
        network, _ = load_model(folder)
        files = _write_onnx(asked, network, folder) if asked.onnx else []
        name = asked.push or Path(asked.out).resolve().name
        told = Told(name, f"{PREFIX}{name}" if asked.push else name, asked.licence, cards, files)
        write_text(folder / CARD, model_card(network, shared.about, told))
    print(f"model: {asked.out} ({len(cards)} result cards)")
    if asked.push:
        print(f"pushed: {push(asked.out, asked.push, asked.private)}")
    return Path(asked.out)


def _check(asked: Request) -> None:
    if (asked.checkpoint is None) == (asked.released is None):
        raise UserError("give --checkpoint FILE or --released FILE, one of them")
    if (asked.normalised_input or asked.int8) and not asked.onnx:
        raise UserError("--normalised-input and --int8 go with --onnx")
    if asked.int8 and (asked.calibrate is None or asked.normalised_input):
        raise UserError("--int8 wants --calibrate FOLDER, photos like those to be described, and normalisation inside")
    if asked.push:
        check_push(asked.push)


def _write_onnx(asked: Request, network: DescriptorModel, folder: Path) -> list[tuple[str, str]]:
    """Write the ONNX files that were asked for; their names, and what the card says of each."""
    from dolglab.sharing import onnx_export as int8
    from dolglab.sharing import onnx_export as onnx_file

    worst = onnx_file.write_onnx(network, folder / onnx_file.FILE, asked.normalised_input)
    about = onnx_file.about(network, asked.normalised_input)
    print(f"{onnx_file.FILE}: differs from torch by {worst:.1e} at most")
    files = [
        (
            onnx_file.FILE,
            f"`{onnx_file.INPUT}` {about['input']}, to `{onnx_file.OUTPUT}` {about['output']}; within "
            f"{onnx_file.TOLERANCE:.0e} of torch. Mean {about['mean']}, std {about['std']} of pixels in 0..1.",
        )
    ]
    if asked.int8:
        photos = int8.write_int8(folder / onnx_file.FILE, folder / int8.FILE, str(asked.calibrate))
        print(
            f"{int8.FILE}: ranges of {photos} photos in {asked.calibrate}; its descriptors are not those of the model"
        )
        files.append((int8.FILE, f"the same with 8-bit convolutions, ranges from {photos} photos; other descriptors."))
    return files
