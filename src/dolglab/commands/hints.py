"""What may be meant by a key, a group or a choice that does not exist: the nearest one that does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches

from dolglab.commands.config_reference import FIRST, choices_of, last_name, option_text

# Of 2, what `_likeness` gives of a key that may be meant, and of one that surely is.
MAY_BE, SURELY = 1.1, 1.6
# What is added for an option that people change first.
OFTEN = 0.1


def nearest_choice(choice: str, group: str, options: Sequence[str]) -> str | None:
    """The choice of a group that is meant: one whose option has that value, whose name holds it, or is most like it.

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
    """What to say of a key that is none and was given a `value`: `keys` are those that are, `groups` have choices.

    >>> nearest_key("lr", "0.1", ["optim.optimizer.lr", "local.attention"], {})
    'did you mean optim.optimizer.lr?'
    >>> nearest_key("net", "r101", ["seed"], {"backbone": ["r50", "r101"]})
    'did you mean backbone=r101?'
    """
    section = key.rpartition(".")[0]
    # Within a section that there is, the last name alone tells options apart.
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
    """Whether a value is a word, or begins with it before a dot or the like."""
    return re.match(rf"{re.escape(word)}\b", value) is not None


def _score(key: str, name: str) -> float:
    """How likely a name is meant by a key, from 0 to 2 and a little more."""
    words = FIRST.get(last_name(name))
    if words and last_name(key).replace("_", " ") in (words, f"{words}s"):
        return 2.0
    return _likeness(key, name) + (OFTEN if words else 0.0)


def _likeness(key: str, name: str) -> float:
    """From 0 to 2: of the whole names, and of their last parts, by which most options are remembered."""
    end, name_end = (re.split(r"[.@/]", word)[-1] for word in (key, name))
    return SequenceMatcher(None, key, name).ratio() + SequenceMatcher(None, end, name_end).ratio()


def _explained(key: str, keys: Sequence[str]) -> str | None:
    """The first key whose explanation begins with a word, such as trainer.devices with "GPUs"."""
    word = rf"{re.escape(last_name(key).replace('_', ' '))}\b"
    return next((name for name in keys if re.match(word, option_text(name), re.IGNORECASE)), None)
