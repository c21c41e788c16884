"""Models on the Hugging Face hub: download and push whole folders."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from huggingface_hub import HfApi, get_token, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from dolglab.errors import UserError
from dolglab.sharing.networks import PREFIX

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
# Errors of the hub's client, its own and httpx's, that a user can resolve.
HUB_FAILURES = (HfHubHTTPError, HFValidationError, httpx.HTTPError, OSError)


def is_cached(source: str) -> bool:
    """Whether hf://OWNER/NAME, or a file of it, was downloaded before."""
    from dolglab.models.checkpoint import TENSORS

    owner, _, rest = source.removeprefix(PREFIX).strip("/").partition("/")
    name, _, file = rest.partition("/")
    try:
        return isinstance(try_to_load_from_cache(f"{owner}/{name}", file or TENSORS), str)
    except HUB_FAILURES:
        return False


def fetch(source: str, extra_file: str | None = None, api: HfApi | None = None) -> Path:
    """The local folder of hf://OWNER/NAME, with an extra file if it exists, downloaded once into the hub's cache.

    Raises UserError for an invalid name, and if the repository cannot be downloaded or contains no exported model.
    """
    from dolglab.models.checkpoint import ABOUT, TENSORS

    name = check_name(source.removeprefix(PREFIX).strip("/"))
    wanted = [ABOUT, TENSORS, *([extra_file] if extra_file else [])]
    try:
        folder = Path((api or HfApi()).snapshot_download(name, allow_patterns=wanted))
    except HUB_FAILURES as error:
        raise UserError(f"{PREFIX}{name} could not be downloaded: {failure_text(error)}") from error
    if not all((folder / file).is_file() for file in (ABOUT, TENSORS)):
        raise UserError(f"{PREFIX}{name} has no {ABOUT} and {TENSORS}: it was not written by `dolglab export`")
    return folder


def push_folder(folder: str | Path, name: str, private: bool = False, api: HfApi | None = None) -> str:
    """Push an exported folder to the repository OWNER/NAME, which is created if needed; returns its address.

    Raises UserError for an invalid name, without a token, and if the hub refuses.
    """
    api = api or HfApi()
    check_name(name)
    try:
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Model written by dolglab export")
    except HUB_FAILURES as error:
        raise UserError(f"{name} could not be pushed ({folder} is written): {failure_text(error)}") from error
    return f"{api.endpoint}/{name}"


def check_push(name: str) -> None:
    """Raise UserError for an invalid name, and if no token is stored, before anything is written."""
    check_name(name)
    if get_token() is None:
        raise UserError("--push needs a token of the Hugging Face hub: run `hf auth login`, or set HF_TOKEN")


def check_name(name: str) -> str:
    """`name`, unchanged. Raises UserError unless it is OWNER/NAME."""
    if not REPOSITORY.fullmatch(name):
        raise UserError(f"{name or 'nothing'} is not OWNER/NAME of the Hugging Face hub")
    return name


def failure_text(error: Exception) -> str:
    """The error on one line, for people."""
    if isinstance(error, GatedRepoError):
        return "access must be requested there first (then `hf auth login`)"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository, or a private one (then `hf auth login`, or set HF_TOKEN)"
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        reasons = {401: "the hub does not accept your token", 403: "your token may not do this"}
        return reasons.get(status, f"the hub answered {status}")
    if isinstance(error, HFValidationError):
        return " ".join(str(error).split())[:200]
    return f"the hub cannot be reached, and it is not in the cache ({type(error).__name__})"
