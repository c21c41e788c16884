"""Export networks to ONNX: exactly, compared with torch, or in int8, which is smaller, faster and approximate."""

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
# The largest accepted difference in a value of an L2-normalised descriptor.
TOLERANCE = 1e-4
# Number, height and width of the images for the comparison; no side is a multiple of a stride or a patch.
SHAPES = ((1, 64, 64), (3, 97, 131), (1, 150, 75))
# Number of photos that determine the ranges of activations, and their longer side.
CALIBRATION_PHOTOS, CALIBRATION_SIDE = 64, 512


def write_onnx(network: DescriptorModel, path: Path, normalised: bool = False, tolerance: float = TOLERANCE) -> float:
    """Export a network to `path` and compare it with torch on several shapes; returns the largest difference.

    The graph takes RGB in 0..255, or `normalised` images. Raises UserError, and writes nothing, if a package is
    missing, the network cannot be exported, or the file would differ from torch by more than `tolerance`.
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
    """The metadata of an ONNX file."""
    pixels = "normalised by mean and std" if normalised else "RGB, 0..255"
    return {
        "fingerprint": fingerprint(network),
        "architecture": f"{type(network).__name__} on {network.backbone.name}",
        "dim": str(network.dim),
        "side": str(network.side),
        "normalisation": OUTSIDE if normalised else INSIDE,
        # Empty if the backbone does not state them.
        "mean": " ".join(map(str, getattr(network.backbone, "mean", ()))),
        "std": " ".join(map(str, getattr(network.backbone, "std", ()))),
        "input": f"float32 (batch, 3, height, width), {pixels}",
        "output": f"float32 (batch, {network.dim}), L2-normalised",
    }


def max_difference(network: DescriptorModel, session: Session, normalised: bool = False) -> float:
    """The largest difference between the runtime's and torch's values, over several shapes of noise."""
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
    """A network as ONNX, optionally with torch's optimisation. Raises UserError if it cannot be exported."""
    axes = {0: "batch", 2: "height", 3: "width"}
    least = trial_size(graph.network, (1, 1))
    # No side is a multiple of a stride or a patch, so that the graph cannot rely on it.
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
        raise UserError(f"ONNX needs {error.name}: pip install 'dolglab[onnx]'") from None
    except Exception as error:
        raise UserError(f"the network cannot be exported to ONNX ({type(error).__name__})") from error
    assert program is not None
    return program


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Suppress the exporter's notes on its internal steps."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


class ExportableNetwork(nn.Module):
    """Computes L2-normalised descriptors of images, RGB in 0..255 or `normalised`, by operations independent of their
    size.

    The given network is not modified; batch norms are folded into convolutions unless `fold` is false. Raises UserError
    for a network that cannot be exported.
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
    """TensorFlow's padding by ONNX's own operator: computed in Python, formulas of height and width would explode.

    It only works during an export.
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
    """Raise UserError for a network whose layers depend on the image's size."""
    for module in network.modules():
        if reason := getattr(module, "not_exportable", None):
            raise UserError(f"{reason}: ONNX cannot hold it")
    if network.backbone.name.startswith("swin"):
        raise UserError(f"the windows of {network.backbone.name} depend on the size of the image: ONNX cannot hold it")


def _replace_layers(module: nn.Module) -> None:
    """Replace layers that depend on the size of their input by equivalent ones."""
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
    """Write the ONNX file `source` with quantised convolutions; returns the number of photos used for calibration.

    Weights have one scale per channel, activations one per map, from the range of values on the photos of `folder`.
    The file gets a fingerprint of its own, so that libraries do not mix the two.
    Raises UserError if a package is missing or there are no photos.
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ModuleNotFoundError as error:
        raise UserError(f"ONNX needs {error.name}: pip install 'dolglab[onnx]'") from None
    photos = calibration_photos(folder)
    # It warns that shapes were not inferred; batch, height and width are variable here.
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
    """Evenly chosen photos in a folder. Raises UserError if there are none."""
    files = sorted(path for path in Path(folder).rglob("*") if is_image(path.name) and path.is_file())
    if not files:
        raise UserError(f"no photos in {folder}: --calibrate needs a folder of photos like those to be described")
    return [files[i] for i in np.linspace(0, len(files) - 1, min(CALIBRATION_PHOTOS, len(files))).astype(int).tolist()]


def _calibration_reader(photos: Sequence[Path]):
    from onnxruntime.quantization import CalibrationDataReader

    def read() -> Iterator[NDArray[np.float32]]:
        for photo in photos:
            try:
                image = shrink(decode(read_bytes(photo)), CALIBRATION_SIDE)
            except (BrokenImageError, OSError):
                # The other photos determine the ranges.
                continue
            yield np.ascontiguousarray(image.transpose(2, 0, 1)[None]).astype(np.float32)

    images = read()

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, NDArray[np.float32]]:
            image = next(images, None)
            return {} if image is None else {INPUT: image}

    return Reader()
