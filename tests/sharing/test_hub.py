"""Folders on a hub, with a small server that answers like huggingface.co."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from dolglab.errors import UserError
from dolglab.models.checkpoint import load_model
from dolglab.sharing import hub
from dolglab.sharing.export import export
from dolglab.sharing.hub import fetch, push_folder
from dolglab.sharing.networks import is_hub_folder

COMMIT = "c" * 40


class Hub:
    """Repositories by name, with their files; those in `private` are hidden without a token."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.api: HfApi


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self, data: object, status: int = 200, **headers: str) -> None:
            body = data if isinstance(data, bytes) else json.dumps(data).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def do_POST(self) -> None:
            body = self.body()
            if self.headers.get("Authorization") != "Bearer hf_right":
                self.answer({"error": "Invalid credentials"}, 401)
            elif self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization', 'me')}/{asked['name']}"
                state.repositories.setdefault(name, {})
                if asked.get("private") or asked.get("visibility") == "private":
                    state.private.add(name)
                self.answer({"url": f"{state.api.endpoint}/{name}"})
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                plain = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
                self.answer({"files": [{"path": file["path"], **plain} for file in files]})
            elif "/commit/" in self.path:
                name = self.path.removeprefix("/api/models/").split("/commit/")[0]
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        state.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                self.answer({"commitUrl": f"{state.api.endpoint}/{name}/commit/{COMMIT}", "commitOid": COMMIT})
            else:
                self.answer({"yaml": "fine", "errors": [], "warnings": []})

        def do_GET(self) -> None:
            path = self.path.split("?")[0].removeprefix("/api/models/").lstrip("/")
            name = "/".join(path.split("/")[:2])
            if name not in state.repositories or name in state.private:
                self.answer({"error": "Repository not found"}, 401, X_Error_Code="RepoNotFound")
                return
            files = state.repositories[name]
            if "/resolve/" in path:
                data = files[path.split("/resolve/")[1].split("/", 1)[1]]
                tag = hashlib.sha1(data).hexdigest()
                self.answer(data, X_Repo_Commit=COMMIT, ETag=f'"{tag}"')
            elif "/tree/" in path:
                self.answer([{"type": "file", "path": file, "size": len(d), "oid": "0"} for file, d in files.items()])
            else:
                self.answer({"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]})

        do_HEAD = do_GET

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    state.api = HfApi(endpoint=f"http://127.0.0.1:{http.server_port}", token="hf_right")
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(str(tmp_path_factory.mktemp("shared") / "model"), checkpoint=str(checkpoint))


def test_a_pushed_model_can_be_downloaded(fake: Hub, folder: Path) -> None:
    assert push_folder(folder, "me/model", api=fake.api) == f"{fake.api.endpoint}/me/model"
    assert sorted(fake.repositories["me/model"]) == ["README.md", "config.json", "model.safetensors"]
    fetched = fetch("hf://me/model", "model.onnx", api=fake.api)
    assert sorted(path.name for path in fetched.iterdir()) == ["config.json", "model.safetensors"]
    assert (fetched / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert load_model(fetched)[1] == load_model(folder)[1]


def test_a_private_repository_and_one_without_a_model(fake: Hub, folder: Path) -> None:
    push_folder(folder, "me/secret", private=True, api=fake.api)
    assert fake.private == {"me/secret"}
    for name in ("me/secret", "me/nothing"):
        with pytest.raises(UserError, match=rf"hf://{name} .*private"):
            fetch(f"hf://{name}", api=fake.api)
    fake.repositories["me/other"] = {"README.md": b"# Something else"}
    with pytest.raises(UserError, match=r"hf://me/other .*config\.json"):
        fetch("hf://me/other", api=fake.api)


def test_a_refused_token_and_a_missing_one(fake: Hub, folder: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match=r"me/model .*token"):
        push_folder(folder, "me/model", api=HfApi(endpoint=fake.api.endpoint, token="hf_wrong"))
    monkeypatch.setattr(hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="--push"):
        export(str(tmp_path / "out"), checkpoint=str(folder), push="me/model")
    assert not (tmp_path / "out").exists()


def test_a_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"hf://me/model .*reached"):
        fetch("hf://me/model", api=HfApi(endpoint="http://127.0.0.1:9", token=False))


@pytest.mark.parametrize("name", ["", "model", "me/a b", "me/", "a/b/c"])
def test_invalid_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="OWNER/NAME"):
        push_folder("folder", name, api=HfApi(token=False))


def test_folders_and_files_of_the_hub_are_distinguished() -> None:
    assert is_hub_folder("hf://me/model")
    assert not is_hub_folder("hf://me/model/weights.pyth")
    assert not is_hub_folder("me/model")
