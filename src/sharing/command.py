"""The command that exports: what goes into the folder, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.contracts import InputError
from src.files import write_text
from src.models.dolg import DescriptorModel
from src.sharing.card import CARD, Told, model_card, read_cards
from src.sharing.folder import from_checkpoint, from_released, new_folder, write_model
from src.sharing.hub import PREFIX, check_push, push
from src.training.checkpoints import TENSORS, load_model


@dataclass(frozen=True)
class Request:
    """What a person asked for: see `src.export`."""

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
    """Write the folder, and push it where that was asked for. Raises InputError for a person's mistake."""
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
        raise InputError("give --checkpoint FILE or --released FILE, one of them")
    if (asked.normalised_input or asked.int8) and not asked.onnx:
        raise InputError("--normalised-input and --int8 go with --onnx")
    if asked.int8 and (asked.calibrate is None or asked.normalised_input):
        raise InputError("--int8 wants --calibrate FOLDER, photos like those to be described, and normalisation inside")
    if asked.push:
        check_push(asked.push)


def _write_onnx(asked: Request, network: DescriptorModel, folder: Path) -> list[tuple[str, str]]:
    """Write the ONNX files that were asked for; their names, and what the card says of each."""
    from src.sharing import int8, onnx_file

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
