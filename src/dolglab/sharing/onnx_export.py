"""Networks as ONNX files: exact ones, compared with torch, and int8 ones, smaller, faster and not quite the same."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from dolglab.data.image_errors import BrokenImageError
from dolglab.data.image_reading import decode, shrink
from dolglab.data.sources import is_image
from dolglab.errors import UserError
from dolglab.extraction.describer import INPUT, INSIDE, OUTPUT, OUTSIDE, Session
from dolglab.extraction.descriptor_store import fingerprint
from dolglab.extraction.extractor import for_inference, trial_size
from dolglab.io import atomic_path, read_bytes
from dolglab.models.dolg import DescriptorModel
from dolglab.models.local_branch import DilatedConv

INT8_FILE = "model.int8.onnx"
OPSET = 20
# What an equal graph may differ by, in numbers of an L2-normalised descriptor.
TOLERANCE = 1e-4
# Images, height and width of what it is compared on; no side is a multiple of a stride or a patch.
SHAPES = ((1, 64, 64), (3, 97, 131), (1, 150, 75))
# Photos that the ranges of activations are taken from, and their longer side.
CALIBRATION_PHOTOS, CALIBRATION_SIDE = 64, 512


def write_onnx(network: DescriptorModel, path: Path, normalised: bool = False, tolerance: float = TOLERANCE) -> float:
    """Write a network as `path`, compared with torch over several shapes; the largest difference of a number.

    The graph takes RGB in 0..255, or `normalised` images. Raises UserError where a package is missing, the network does
    not go into ONNX, or the file would differ from torch by more than `tolerance`; nothing is then written.
    """
    with atomic_path(path) as aside:
        program = export_program(ExportableNetwork(network, normalised))
        program.model.metadata_props.update(onnx_metadata(network, normalised))
        program.save(aside)
        worst = max_difference(network, Session(aside), normalised)
        if not worst <= tolerance:
            raise UserError(f"{path.name} would differ from torch by {worst:.1e} (allowed: {tolerance:.0e})")
    return worst


def onnx_metadata(network: DescriptorModel, normalised: bool) -> dict[str, str]:
    """What a file says of itself."""
    pixels = "normalised by mean and std" if normalised else "RGB, 0..255"
    return {
        "fingerprint": fingerprint(network),
        "architecture": f"{type(network).__name__} on {network.backbone.name}",
        "dim": str(network.dim),
        "side": str(network.side),
        "normalisation": OUTSIDE if normalised else INSIDE,
        # Of a backbone that does not state them: empty.
        "mean": " ".join(map(str, getattr(network.backbone, "mean", ()))),
        "std": " ".join(map(str, getattr(network.backbone, "std", ()))),
        "input": f"float32 (batch, 3, height, width), {pixels}",
        "output": f"float32 (batch, {network.dim}), L2-normalised",
    }


def max_difference(network: DescriptorModel, session: Session, normalised: bool = False) -> float:
    """By how much the runtime's numbers differ from torch's, at most, over several shapes of noise."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    least = trial_size(network, (1, 1))
    for batch, height, width in SHAPES:
        shape = (batch, 3, max(height, least[0]), max(width, least[1]))
        images = torch.randint(0, 256, shape, generator=generator).float()
        with torch.inference_mode():
            inputs = network.backbone.normalise(images)
            expected = F.normalize(network.eval()(inputs)).numpy()
        found = session((inputs if normalised else images).numpy())
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst


def export_program(graph: ExportableNetwork, optimize: bool = True) -> torch.onnx.ONNXProgram:
    """A network as ONNX, with torch's own optimisation or without. Raises UserError where it does not go into it."""
    axes = {0: "batch", 2: "height", 3: "width"}
    least = trial_size(graph.network, (1, 1))
    # No side is a multiple of a stride or a patch, so that nothing follows from its being one.
    example = torch.rand(2, 3, max(227, least[0] + 3), max(261, least[1] + 5)) * 255
    try:
        with _quiet_logs(), torch.no_grad():
            program = torch.onnx.export(
                graph.eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=(axes,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                verbose=False,
                optimize=optimize,
            )
    except ModuleNotFoundError as error:
        raise UserError(f"ONNX wants {error.name}: pip install 'dolglab[onnx]'") from None
    except Exception as error:
        raise UserError(f"the network does not go into ONNX ({type(error).__name__})") from error
    assert program is not None
    return program


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """The exporter's notes on its own steps, which say nothing to a person, are kept out."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


class ExportableNetwork(nn.Module):
    """Images, RGB in 0..255 or `normalised`, to L2-normalised descriptors; what it does does not depend on their size.

    The network stays as it is; its batch norms are folded into convolutions, unless `fold` is false. Raises UserError
    for one of which that cannot be had.
    """

    def __init__(self, network: DescriptorModel, normalised: bool = False, fold: bool = True) -> None:
        super().__init__()
        check_exportable(network)
        self.normalised = normalised
        self.network = copy.deepcopy(for_inference(network) if fold else network.eval())
        _replace_layers(self.network)

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) float32 to (b, dim) float32."""
        return F.normalize(self.network(images if self.normalised else self.network.backbone.normalise(images)))


class SameConv(nn.Conv2d):
    """TensorFlow's padding as ONNX has it: worked out in Python it makes formulas of height and width that explode.

    It computes nothing outside of an export.
    """

    def forward(self, input: Tensor) -> Tensor:
        batch, _, height, width = input.shape
        down, right = self.stride
        return torch.onnx.ops.symbolic(
            "Conv",
            [input, self.weight, *([] if self.bias is None else [self.bias])],
            {
                "auto_pad": "SAME_UPPER",
                "strides": list(self.stride),
                "dilations": list(self.dilation),
                "group": self.groups,
                "kernel_shape": list(self.kernel_size),
            },
            dtype=input.dtype,
            shape=(batch, self.out_channels, (height + down - 1) // down, (width + right - 1) // right),
        )


def check_exportable(network: DescriptorModel) -> None:
    """Raise UserError for a network whose layers follow from the image's size."""
    for module in network.modules():
        if reason := getattr(module, "not_exportable", None):
            raise UserError(f"{reason}: ONNX cannot hold it")
    if network.backbone.name.startswith("swin"):
        raise UserError(f"{network.backbone.name} cuts each size of image into other windows: ONNX cannot hold it")


def _replace_layers(module: nn.Module) -> None:
    """Put layers that give the same in place of those that look at the size of their input."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and isinstance(child, Conv2dSame):
            setattr(module, name, _rebuild(SameConv, child))
        elif isinstance(child, DilatedConv):
            setattr(module, name, _rebuild(nn.Conv2d, child))
        else:
            _replace_layers(child)


def _rebuild(kind: type[nn.Conv2d], conv: nn.Conv2d) -> nn.Conv2d:
    new = kind(conv.in_channels, conv.out_channels, 1, groups=conv.groups, bias=conv.bias is not None)
    new.kernel_size, new.stride, new.padding, new.dilation = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    new.weight, new.bias = conv.weight, conv.bias
    return new.eval()


def write_int8(source: Path, path: Path, folder: str | Path) -> int:
    """Write the ONNX file `source` with quantised convolutions; how many photos of `folder` their ranges come from.

    Weights have a scale a channel, activations one a map, from the least to the largest value that the photos give.
    The file's fingerprint is another one than its source's: libraries do not mix the two.
    Raises UserError where a package is missing or there are no photos.
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ModuleNotFoundError as error:
        raise UserError(f"ONNX wants {error.name}: pip install 'dolglab[onnx]'") from None
    photos = calibration_photos(folder)
    # It warns that it was not told to infer shapes, which leave batch, height and width open here.
    logging.getLogger().setLevel(logging.ERROR)
    with atomic_path(path) as aside:
        quantization.shape_inference.quant_pre_process(source, aside, skip_symbolic_shape=True)
        quantization.quantize_static(
            aside,
            aside,
            _calibration_reader(photos),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
        )
        model, about = onnx.load(aside), Session(source).about
        onnx.helper.set_model_props(model, {**about, "fingerprint": f"{about['fingerprint']}-int8"})
        onnx.save(model, aside)
        Session(aside)
    return len(photos)


def calibration_photos(folder: str | Path) -> list[Path]:
    """Photos below a folder, evenly chosen. Raises UserError where there is none."""
    files = sorted(path for path in Path(folder).rglob("*") if is_image(path.name) and path.is_file())
    if not files:
        raise UserError(f"no photos in {folder}: --calibrate wants a folder of photos like those to be described")
    return [files[i] for i in np.linspace(0, len(files) - 1, min(CALIBRATION_PHOTOS, len(files))).astype(int).tolist()]


def _calibration_reader(photos: Sequence[Path]):
    from onnxruntime.quantization import CalibrationDataReader

    def read() -> Iterator[NDArray[np.float32]]:
        for photo in photos:
            try:
                image = shrink(decode(read_bytes(photo)), CALIBRATION_SIDE)
            except (BrokenImageError, OSError):
                # The ranges come from the others.
                continue
            yield np.ascontiguousarray(image.transpose(2, 0, 1)[None]).astype(np.float32)

    images = read()

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, NDArray[np.float32]]:
            image = next(images, None)
            return {} if image is None else {INPUT: image}

    return Reader()
