"""Families of look-alikes: what siblings share, and how they differ."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dolglab.demo_world.building import build
from dolglab.demo_world.grammar import sample_family

examples = settings(max_examples=30, deadline=None, derandomize=True)


@examples
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_siblings_share_their_style_and_differ_in_details(seed, siblings):
    family = sample_family(np.random.default_rng(seed), siblings)
    assert len(family) == siblings
    assert len({landmark.style for landmark in family}) == 1
    assert len({landmark.details for landmark in family}) == siblings
    assert len({landmark.details.emblem for landmark in family}) == siblings


@examples
@given(st.integers(0, 10_000))
def test_a_family_depends_only_on_its_seed(seed):
    assert sample_family(np.random.default_rng(seed), 3) == sample_family(np.random.default_rng(seed), 3)


def test_families_have_different_styles():
    styles = {sample_family(np.random.default_rng(seed), 1)[0].style for seed in range(50)}
    assert len(styles) == 50


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(0, 10_000))
def test_siblings_are_distinguishable_by_their_fronts(seed):
    family = sample_family(np.random.default_rng(seed), 3)
    fronts = []
    for landmark in family:
        building = build(np.random.default_rng(0), landmark)
        walls = [s.texture for volume in building.volumes for s in volume.surfaces]
        fronts.append(b"".join(wall.tobytes() for wall in walls))
    assert len(set(fronts)) == 3
