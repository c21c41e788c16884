"""Overrides in Hydra's syntax and in folder names."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from dolglab.commands.tune import with_train
from dolglab.sweeps.jobs import job_folder, override, short_names


def test_a_jobs_folder_names_its_settings_in_safe_characters():
    assert job_folder(3, {"margin.margin": "0.15", "pooling.p": "2"}) == "3_margin-0.15_p-2"
    assert job_folder(0, {}) == "0"
    assert job_folder(1, {"+data.x": "[a, 'b c']", "model": "''"}) == "1_x-a-b-c_model-empty"
    assert job_folder(2, {"lr": "-1e-3"}) == "2_lr-1e-3"
    # File systems allow 255 bytes; the end of a path is the most informative part.
    assert job_folder(3, {"checkpoint": f"/{'long/' * 99}best.ckpt"}).endswith("-long-best.ckpt")
    assert len(job_folder(3, {"checkpoint": f"/{'long/' * 99}best.ckpt"})) < 80


def test_keys_with_the_same_last_part_are_named_in_full():
    assert short_names(["pooling.p", "fusion.p", "seed"]) == {
        "pooling.p": "pooling.p",
        "fusion.p": "fusion.p",
        "seed": "seed",
    }


@pytest.mark.parametrize("value", [None, True, 3, 1e-05, "r50", "a b", "it's", "null"])
def test_values_keep_their_type_in_a_training(value):
    (parsed,) = OverridesParser.create().parse_overrides([override("ema", value)])
    assert parsed.value() == value


@pytest.mark.parametrize(
    "override", ["a=1", "a='b c'", r'method="a \"b\" c\\"', r"a=\d", "a=[1,'x']", "a={b:c}", "a=b\\"]
)
def test_options_behind_the_dashes_are_passed_to_trials_unchanged(override):
    given = with_train(["tune", "trials=3", "--", override, "b=2"])
    assert given[:2] == ["tune", "trials=3"]
    (parsed,) = OverridesParser.create().parse_overrides(given[2:])
    assert parsed.value() == [override, "b=2"]


def test_a_search_may_pass_no_options_to_trials():
    assert with_train(["tune", "x=1"]) == ["tune", "x=1"]
    assert with_train(["tune", "--"]) == ["tune", "train=[]"]
