"""Options that only some of a sweep's choices have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException

from hydra_plugins.dolglab_sweeper import fitting_jobs

ROOT = Path(__file__).resolve().parents[2]
LOCAL, GLOBAL, WORDS = "entry=rootsift_asmk", "entry=efficientnet_lite0_gem", "aggregate.words=1024"


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


def fit(*jobs: list[str]) -> list[list[str]]:
    return fitting_jobs(jobs, lambda overrides: compose("evaluate", overrides=overrides))


@pytest.mark.parametrize("entries", [(LOCAL, GLOBAL), (GLOBAL, LOCAL)])
def test_an_option_reaches_the_jobs_that_have_it(entries: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    found = fit(*([entry, WORDS, "crop=none"] for entry in entries))
    assert found == [[entry, *([WORDS] if entry == LOCAL else []), "crop=none"] for entry in entries]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{WORDS} is left out of 1 of 2 jobs")


def test_values_do_not_repeat_a_job_that_has_no_such_option() -> None:
    jobs = [[entry, f"aggregate.words={words}"] for entry in (LOCAL, GLOBAL) for words in (64, 128)]
    assert fit(*jobs) == [*jobs[:2], [GLOBAL]]


def test_an_option_of_no_job_and_other_mistakes_are_refused() -> None:
    with pytest.raises(ConfigCompositionException, match=r"aggregate\.wrds"):
        fit([LOCAL, "aggregate.wrds=1"], [GLOBAL, "aggregate.wrds=1"])
    with pytest.raises(Exception, match="no_such_model"):
        fit([LOCAL], ["entry=no_such_model"])
