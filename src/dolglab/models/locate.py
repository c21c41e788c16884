"""Find files of weights: on disk, in an installed package, on the Hugging Face hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dolglab.errors import UserError


def locate(source: str | Path) -> Path:
    """The file for a path, for `package:PACKAGE/FILE` in an installed package, or for `hf://OWNER/NAME/FILE`.

    A file of the Hugging Face hub is downloaded once, into the hub's own cache.
    Raises UserError if there is no such file, package or repository.
    """
    text = str(source)
    if text.startswith("package:"):
        path = _in_package(text.removeprefix("package:"))
    elif text.startswith("hf://"):
        path = _from_hub(text.removeprefix("hf://"))
    else:
        path = Path(source)
    if not path.is_file():
        raise UserError(f"weights not found: {source}")
    return path


def _in_package(name: str) -> Path:
    package, _, file = name.partition("/")
    # The package is not imported: its code may need packages that the weights do not need.
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise UserError(f"the package {package} with the weights is not installed")
    return Path(found.submodule_search_locations[0]) / file


def _from_hub(name: str) -> Path:
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if not (owner and repository and file):
        raise UserError(f"hf://{name} is not hf://OWNER/NAME/FILE")
    try:
        from huggingface_hub import hf_hub_download
    except ModuleNotFoundError:
        raise UserError("hf:// needs the hub: pip install 'dolglab[hub]'") from None
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"hf://{name} could not be downloaded ({type(error).__name__}: {reason})") from error
