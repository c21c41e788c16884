"""Sources of external networks: timm, torch.hub, the Hugging Face hub, Python, ONNX files.

Each opener builds the network and describes its input; the user's `options` take precedence. Options are those of
`ForeignInput` by name: `mean`, `std`, `size`, `licence`, `arguments`.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dolglab.concurrency import available_cores
from dolglab.errors import UserError
from dolglab.extraction.describer import open_graph
from dolglab.io import sha256_of
from dolglab.models.dolg import GlobalDescriptor
from dolglab.models.foreign import ForeignInput, foreign_network

Options = Mapping[str, Any]
# Input types of ONNX graphs; integers are pixels in 0..255.
GRAPH_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
# Arguments with which timm would read files.
TIMM_OWN = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "num_classes"}
PIXELS = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255,) * 3}


class Foreign(NamedTuple):
    """The opener of one kind of address, `open(what, source, options, trust)`, and whether external code runs."""

    open: Callable[[str, str, Options, bool], GlobalDescriptor]
    runs_code: bool


def open_foreign(source: str, options: Options, trust: bool) -> GlobalDescriptor:
    """The network at an address KIND:WHAT of `FOREIGN`, in eval mode.

    Raises UserError if external code would run without `trust`, if the network cannot be obtained or built, and like
    `foreign_network`.
    """
    kind, _, what = source.partition(":")
    opener = FOREIGN[kind]
    if opener.runs_code and not trust:
        raise UserError(
            f"{source} runs external code with all your rights on this machine: read it first, then evaluate it with "
            "model.trust=true, or call load_network(..., trust=True)"
        )
    try:
        return opener.open(what, source, options, trust)
    except (UserError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        # Unreachable hubs and external code may raise anything.
        why = " ".join(str(error).split())[:300]
        raise UserError(f"{source} could not be loaded: {type(error).__name__}: {why}") from error


def _from_timm(what: str, source: str, options: Options, trust: bool) -> GlobalDescriptor:
    """A timm network, or one on the Hugging Face hub in timm's format (OWNER/NAME), with its own pooling."""
    import timm

    name = f"hf-hub:{what}" if "/" in what else what
    if "/" not in what and not timm.is_model(what):
        raise UserError(f"{source}: unknown to timm: choose a name from timm.list_models(), or OWNER/NAME on the hub")
    if theirs := sorted(options["arguments"].keys() & TIMM_OWN):
        raise UserError(f"{source}: model.arguments cannot hold {', '.join(theirs)}: they are the architecture's own")
    arguments = {"pretrained": True, **options["arguments"]}
    if options["size"] is not None and _fixed_size(what):
        arguments["img_size"] = tuple(options["size"])
    net = timm.create_model(name, num_classes=0, **arguments)
    config: Any = net.pretrained_cfg
    fixed = tuple(config["input_size"][1:]) if config.get("fixed_input_size") else None
    said = {"mean": config["mean"], "std": config["std"], "size": fixed, "licence": config.get("license")}
    return foreign_network(net, _given(source, said, options, digest=what))


def _fixed_size(name: str) -> bool:
    import timm

    return "/" not in name and bool(getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False))


def _from_transformers(what: str, source: str, options: Options, trust: bool) -> GlobalDescriptor:
    """An image encoder of the transformers library, by OWNER/NAME on the hub or a folder.

    Its descriptor is the pooled output or, without one, the first token of the last layer.
    """
    try:
        from transformers import AutoImageProcessor, AutoModel  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UserError(f"{source} needs the transformers library: pip install transformers") from None
    arguments = dict(options["arguments"])
    processor = AutoImageProcessor.from_pretrained(what, trust_remote_code=trust).to_dict()
    model = AutoModel.from_pretrained(what, trust_remote_code=trust, use_safetensors=True, **arguments)
    # Of a pair of encoders, use the image encoder.
    encoder = getattr(model, "vision_model", model)
    sides = [processor.get(key) or {} for key in ("crop_size", "size")]
    size = next(((s["height"], s["width"]) for s in sides if {"height", "width"} <= dict(s).keys()), None)
    said = {"mean": processor["image_mean"], "std": processor["image_std"], "size": size}
    return foreign_network(_Encoder(encoder), _given(source, said, options, trusted=trust))


class _Encoder(nn.Module):
    """An encoder of the transformers library as a function of images."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        found = self.encoder(pixel_values=images)
        pooled = getattr(found, "pooler_output", None)
        return found.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)


def _from_torch_hub(what: str, source: str, options: Options, trust: bool) -> GlobalDescriptor:
    """What an entry point of torch.hub returns: OWNER/REPOSITORY:ENTRY (with :BRANCH before it), or FOLDER:ENTRY."""
    repository, _, entry = what.rpartition(":")
    if not repository or not entry:
        raise UserError(f"{source} is not torchhub:OWNER/REPOSITORY:ENTRY or torchhub:FOLDER:ENTRY")
    place: dict[str, Any] = {"source": "local"} if Path(repository).is_dir() else {"trust_repo": True}
    net: Any = torch.hub.load(repository, entry, verbose=False, **place, **options["arguments"])
    return foreign_network(net, _given(source, {}, options, digest=entry, trusted=True))


def _from_python(what: str, source: str, options: Options, trust: bool) -> GlobalDescriptor:
    """The return value of a function in a module: a network, or a function from images to descriptors.

    Modules are found by Python's own rules, those in the current folder first.
    """
    module_name, _, function = what.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    finally:
        sys.path.remove(folder)
    build: Any = getattr(module, function, None)
    if not callable(build):
        raise UserError(f"{source}: module {module_name} has no function {function or 'named after a second colon'}")
    net: Any = build(**options["arguments"])
    digest = hashlib.sha256(f"{function} of {inspect.getsource(module)}".encode()).hexdigest()
    return foreign_network(net, _given(source, {}, options, digest=digest, trusted=True))


def _from_onnx(what: str, source: str, options: Options, trust: bool) -> GlobalDescriptor:
    """An ONNX file from images to descriptors, on the CPU; the shape of its input decides the layout."""
    if not Path(what).is_file():
        raise UserError(f"{source}: no such file")
    session = open_graph(what, available_cores())
    if "fingerprint" in session.get_modelmeta().custom_metadata_map:
        raise UserError(f"{source} was written by `dolglab export`: name the file without onnx:")
    takes, channels_last = _image_input(session, source)
    arguments = dict(options["arguments"])
    outputs = [end.name for end in session.get_outputs()]
    output = arguments.get("output", outputs[0] if len(outputs) == 1 else None)
    if output not in outputs or arguments.keys() - {"output"}:
        raise UserError(f"{source}: choose the output with the descriptors, model.arguments.output={'|'.join(outputs)}")
    batch, *sides = (takes.shape[0], *takes.shape[1:3]) if channels_last else (takes.shape[0], *takes.shape[2:])
    kind = GRAPH_TYPES[takes.type]

    # A function can be copied, but a session cannot.
    def run(images: Tensor) -> Tensor:
        order = (0, 2, 3, 1) if channels_last else (0, 1, 2, 3)
        pixels = images.permute(order).cpu().numpy()
        pixels = (pixels.round() if kind == np.uint8 else pixels).astype(kind)
        step = batch if isinstance(batch, int) else len(pixels)
        # With a fixed batch size, the last group is filled up with its first images.
        groups = [np.resize(pixels[i : i + step], (step, *pixels.shape[1:])) for i in range(0, len(pixels), step)]
        parts = [np.asarray(session.run([output], {takes.name: group})[0]) for group in groups]
        return torch.from_numpy(np.concatenate(parts)[: len(pixels)].astype(np.float32)).to(images.device)

    size = tuple(sides) if all(isinstance(side, int) for side in sides) else None
    said = {"size": size, **(PIXELS if kind == np.uint8 else {})}
    return foreign_network(run, _given(source, said, options, digest=sha256_of(Path(what))))


def _image_input(session: Any, source: str) -> tuple[Any, bool]:
    """The graph's only input, which must take images, and whether their channels are last. Raises UserError."""
    inputs = session.get_inputs()
    takes = inputs[0]
    places = [place for place in (1, 3) if len(takes.shape) == 4 and takes.shape[place] == 3]
    if len(inputs) != 1 or not places or takes.type not in GRAPH_TYPES:
        found = ", ".join(f"{end.name} {end.type} {end.shape}" for end in inputs)
        raise UserError(f"{source} takes {found}, not one batch of images (b, 3, h, w) or (b, h, w, 3)")
    return takes, places[0] == 3


def _given(source: str, said: Options, options: Options, **further: Any) -> ForeignInput:
    """A network's input: as given by the user, else by its opener, else the defaults of `ForeignInput`."""
    stated = {key: value for key, value in options.items() if value is not None}
    return ForeignInput(source, **({key: value for key, value in said.items() if value is not None} | stated | further))


# Addresses KIND:WHAT.
FOREIGN: dict[str, Foreign] = {
    "timm": Foreign(_from_timm, runs_code=False),
    "transformers": Foreign(_from_transformers, runs_code=False),
    "torchhub": Foreign(_from_torch_hub, runs_code=True),
    "python": Foreign(_from_python, runs_code=True),
    "onnx": Foreign(_from_onnx, runs_code=False),
}
