"""Suggestions for keys, groups and choices that do not exist: the nearest existing ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches

from dolglab.commands.config_reference import FIRST, choices_of, last_name, option_text

# `_likeness`, from 0 to 2, from which on a key may be meant, and from which on it surely is.
MAY_BE, SURELY = 1.1, 1.6
# Added for an option that people change first.
OFTEN = 0.1


def nearest_choice(choice: str, group: str, options: Sequence[str]) -> str | None:
    """The choice that is probably meant: one with an option of that value, or whose name contains or resembles it.

    >>> nearest_choice("resnet50", "backbone", ["r18", "r50", "resnext50"])
    'r50'
    >>> nearest_choice("dinov2", "backbone", ["r50", "vit_small_patch14_dinov2"])
    'vit_small_patch14_dinov2'
    """
    known = choices_of(group)
    by_value = [name for name in options if any(_begins(o.value, choice) for o in known[name].options)]
    held = [name for name in options if choice in name]
    return next(iter([*by_value, *held, *get_close_matches(choice, options, 1, 0.4)]), None)


def nearest_key(key: str, value: str, keys: Sequence[str], groups: Mapping[str, Sequence[str]]) -> str:
    """A hint for a key that does not exist and its `value`, from existing `keys` and `groups` with their choices.

    >>> nearest_key("lr", "0.1", ["optim.optimizer.lr", "local.attention"], {})
    'did you mean optim.optimizer.lr?'
    >>> nearest_key("net", "r101", ["seed"], {"backbone": ["r50", "r101"]})
    'did you mean backbone=r101?'
    """
    section = key.rpartition(".")[0]
    # Within an existing section, options differ by their last name only.
    siblings = [name for name in keys if section and name.rpartition(".")[0] == section]
    if near := get_close_matches(last_name(key), map(last_name, siblings)):
        return f"did you mean {section}.{near[0]}?"
    known = [*keys, *groups] if not section else keys
    nearest = max(known, key=lambda name: _score(key, name))
    likeness = _score(key, nearest)
    if likeness < SURELY and (holding := [group for group, choices in groups.items() if value in choices]):
        return f"did you mean {max(holding, key=lambda group: _score(key, group))}={value}?"
    apart = bool(siblings) and last_name(nearest) != last_name(key)
    if (apart or likeness < MAY_BE) and (explained := _explained(key, siblings or keys)):
        return f"did you mean {explained}?"
    if apart:
        return f"{section} has {', '.join(last_name(name) for name in siblings if '_target_' not in name)}"
    if likeness >= MAY_BE:
        choices = groups.get(nearest, ())
        return f"did you mean {nearest}?{' It takes ' if choices else ''}{', '.join(choices)}"
    return "--help lists the groups and keys"


def _begins(value: str, word: str) -> bool:
    """Whether a value begins with a whole word, such as a name before a dot."""
    return re.match(rf"{re.escape(word)}\b", value) is not None


def _score(key: str, name: str) -> float:
    """How likely `key` means `name`, from 0 to a little above 2."""
    words = FIRST.get(last_name(name))
    if words and last_name(key).replace("_", " ") in (words, f"{words}s"):
        return 2.0
    return _likeness(key, name) + (OFTEN if words else 0.0)


def _likeness(key: str, name: str) -> float:
    """Similarity of the whole names plus that of their last parts, from 0 to 2."""
    end, name_end = (re.split(r"[.@/]", word)[-1] for word in (key, name))
    return SequenceMatcher(None, key, name).ratio() + SequenceMatcher(None, end, name_end).ratio()


def _explained(key: str, keys: Sequence[str]) -> str | None:
    """The first key whose explanation begins with a word, such as trainer.devices with "GPUs"."""
    word = rf"{re.escape(last_name(key).replace('_', ' '))}\b"
    return next((name for name in keys if re.match(word, option_text(name), re.IGNORECASE)), None)
