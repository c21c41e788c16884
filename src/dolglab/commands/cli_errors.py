"""Messages for mistakes on the command line or in a configuration: one line, and exit code 2.

For a key, group or choice that does not exist, the message suggests the nearest one.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dolglab.commands.config_reference import choices_of, config_folder, read_choice
from dolglab.commands.hints import nearest_choice, nearest_key
from dolglab.errors import UserError, os_error_text
from dolglab.processes import GONE, PEER_GONE
from dolglab.renamed import current_overrides

# Set in the environment if this module asked Hydra for full errors, to shorten them itself.
ONE_LINE = "DOLG_ONE_LINE_ERRORS"
# Hydra's messages about GROUP=null, about choices, keys and groups that do not exist, and about `+` for existing keys.
NO_OPTION = "Config group override must be a string or a list"
CHOICES_OF = re.compile(r"Available options in '([^']+)'")
UNKNOWN_KEY = re.compile(r"Could not (?:override|delete) '([^'=]+)|'([^']+)' does not\s+exist")
EXISTING_KEY = re.compile(r"An item is already at '([^']+)'")
# Errors of the operating system that the user can act on.
REFUSED_BY_SYSTEM = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOTDIR)


def to_exit(error: Exception, config: str, cfg: DictConfig | None = None) -> SystemExit:
    """Print a user's mistake and return the exit; `config` is the command's configuration in `conf`, such as "train".

    `cfg` is the composed configuration, if there is one. Raises `error` itself if it is no such mistake, or if
    tracebacks are wanted.
    """
    mistake = None if wants_tracebacks() else _mistake(error, config, cfg)
    if mistake is None:
        raise error
    print("error:", mistake, file=sys.stderr)
    return SystemExit(2)


def wants_tracebacks() -> bool:
    """Whether the user asked for tracebacks with HYDRA_FULL_ERROR=1."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1" and ONE_LINE not in os.environ


def compose_config(config: str, overrides: Sequence[str]) -> DictConfig:
    """`hydra.compose` within a command. Raises UserError for keys, groups and choices that do not exist."""
    try:
        return compose(config, overrides=current_overrides(config, overrides))
    except (MissingConfigException, ConfigCompositionException) as error:
        raise UserError(_composition_mistake(error, config, overrides)) from None


def _mistake(error: Exception, config: str, cfg: DictConfig | None) -> Exception | None:
    """The mistake behind `error`: Hydra wraps what a constructor raised in an exception of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__
    if isinstance(cause, UserError):
        return cause
    if isinstance(error, RuntimeError) and any(words in str(error) for words in GONE):
        return UserError(f"{PEER_GONE}: see its message above; resume=true resumes the run")
    if cfg is not None and isinstance(error, InstantiationException | TypeError):
        plain = OmegaConf.to_container(cfg, resolve=False)
        if wrong := next(_texts_for_numbers(cast("dict[str, Any]", plain)), None):
            return UserError(wrong)
    if isinstance(error, InstantiationException):
        key = re.search(r"full_key: (\S+)", str(error))
        return UserError(f"{key[1] if key else 'the configuration'}: {_one_line(error.__cause__ or error)}")
    if isinstance(error, ValueError) and str(error).startswith(NO_OPTION):
        return UserError("a config group cannot be null: leave out that override, or remove the group with ~GROUP")
    if isinstance(error, OSError) and error.errno in REFUSED_BY_SYSTEM:
        return UserError(os_error_text(error))
    if isinstance(error, OverrideParseException):
        return UserError(_unread(str(error.override), config))
    if isinstance(error, MissingConfigException | ConfigCompositionException):
        return UserError(_of_command_line(error, config))
    return UserError(_one_line(error)) if isinstance(error, OmegaConfBaseException | HydraException) else None


def _texts_for_numbers(section: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """A message for each option below a section that is a text, but a number for the constructor that takes it."""
    parameters = _parameters(section.get("_target_", ""))
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _texts_for_numbers(value, f"{prefix}{key}.")
        elif isinstance(value, str) and "${" not in value and key in parameters:
            kinds = set(re.findall(r"\w+", str(parameters[key].annotation)))
            if kinds & {"int", "float"} and not kinds & {"str", "Literal"}:
                yield f"{prefix}{key} must be a number, not {value}"


def _parameters(target: str) -> dict[str, inspect.Parameter]:
    """Parameters of a `_target_`, and of its class if it is a method of one; none if it has no signature."""
    found: dict[str, inspect.Parameter] = {}
    # Hydra logs an error for an empty name, in processes of a sweep too.
    for name in filter(None, (target.rpartition(".")[0], target)):
        with contextlib.suppress(Exception):
            found |= inspect.signature(get_object(name)).parameters
    return found


def _one_line(error: BaseException) -> str:
    """Its message without Hydra's search path; if it is empty, the message of its cause."""
    said = " ".join(str(error).partition("Config search path")[0].split())
    return said or (_one_line(error.__cause__) if error.__cause__ else type(error).__name__)


def _of_command_line(error: Exception, config: str) -> str:
    """The mistake in this process's own overrides."""
    name, overrides = _given(config)
    with _initialized():
        return _composition_mistake(error, name, overrides)


def _unread(override: str, config: str) -> str:
    """The mistake in a word that is no override: a choice without its group, a file, or a value with spaces."""
    command = read_choice(config_folder() / f"{config}.yaml")
    # Recipes are the last groups, and the most likely.
    for group in reversed(list(command.groups)):
        if override in choices_of(group.partition("@")[0]):
            return f"{override} has no key: did you mean {group}={override}?"
    example = f", as in `{command.examples[0]}`" if command.examples else ""
    return f"{override} cannot be read: write KEY=VALUE, with quotes around spaces and commas{example}"


def check_flags(config: str) -> None:
    """Raise UserError for a flag that Hydra does not have: keys of a configuration are written without dashes."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    # Otherwise Hydra would read --experiment as --experimental-rerun.
    parser.allow_abbrev = False
    unknown = parser.parse_known_args()[1]
    flags = [word for word in unknown if word.startswith("-")]
    if unknown and not flags:
        raise UserError(f"flags go before or after all KEY=VALUE, not between them: cannot read {' '.join(unknown)}")
    if not flags:
        return
    name, _, value = flags[0].lstrip("-").partition("=")
    with _initialized():
        cfg = compose(config, return_hydra_config=True)
        known = [*cfg.hydra.runtime.choices, *_dotted(cast("dict[str, Any]", OmegaConf.to_container(cfg)))]
        hint = f"write {name}=VALUE" if name in known else _hint(name, config, [f"{name}={value}"] if value else [])
    raise UserError(f"there is no {flags[0]}; keys are written without dashes: {hint}")


def help_asked(config: str) -> str | None:
    """The command's help, for the choices on the command line; None without --help.

    Raises Hydra's errors for keys, groups and choices that do not exist.
    """
    from hydra._internal.utils import get_args_parser

    if not get_args_parser().parse_args().help:
        return None
    from dolglab.commands.hydra_help import command_help

    name, overrides = _given(config)
    with _initialized():
        return command_help(config, compose(name, overrides=_first_job(overrides), return_hydra_config=True))


def _given(config: str) -> tuple[str, list[str]]:
    """The primary configuration and the overrides of this process's command line."""
    from hydra._internal.utils import get_args_parser

    arguments = get_args_parser().parse_args()
    overrides = list(arguments.overrides)
    if arguments.config_dir:
        overrides.append(f'hydra.searchpath=["file://{Path(arguments.config_dir).absolute()}"]')
    return arguments.config_name or config, overrides


@contextlib.contextmanager
def _initialized() -> Iterator[None]:
    """Hydra initialized with our configurations, as it is during a run."""
    with contextlib.ExitStack() as stack:
        if not GlobalHydra.instance().is_initialized():
            stack.enter_context(initialize_config_dir(str(config_folder()), version_base="1.3"))
        yield


def _composition_mistake(error: Exception, config: str, overrides: Sequence[str]) -> str:
    """The message for an error in composing `config` with `overrides`; Hydra must be initialized."""
    text = str(error)
    within = re.match(r"In '([^']+)'", text)
    place = f" (in {within[1]}.yaml)" if within and within[1] != config else ""
    if isinstance(error, MissingConfigException) and (of_group := CHOICES_OF.search(text)):
        group, options = of_group[1], error.options or []
        choice = str(error.missing_cfg_file).removeprefix(f"{group}/")
        nearest = nearest_choice(choice, group, options)
        hint = f"did you mean {group}={nearest}? There" if nearest else "there"
        return f"there is no {group}={choice}{place}: {hint} are {', '.join(options)}"
    if existing := EXISTING_KEY.search(text):
        return f"{existing[1]} exists already: leave out the +"
    unknown = UNKNOWN_KEY.search(text)
    if unknown is None:
        return _one_line(error)
    key = unknown[1] or unknown[2]
    return f"there is no {key}{place}: {_hint(key, config, overrides)}"


def _hint(key: str, config: str, overrides: Sequence[str]) -> str:
    """A suggestion for a key or group that does not exist.

    It is looked up in the configuration composed with the other `overrides` (for a sweep, with each swept value) or, if
    that fails, in the default one. Hydra composes a sweep's own configuration before it reads the swept choices.
    """
    given = [override for override in overrides if override.split("=", 1)[0].lstrip("+~") == key]
    others = [override for override in overrides if override not in given]
    try:
        others, *further = _varied_jobs(others)
        cfg, *swept = [compose(config, overrides=job, return_hydra_config=True) for job in (others, *further)]
    except (HydraException, OmegaConfBaseException, ValueError):
        cfg, swept = compose(config, return_hydra_config=True), []
    hydra = key.startswith("hydra")
    found = [_dotted(cast("dict[str, Any]", OmegaConf.to_container(own, resolve=False))) for own in (cfg, *swept)]
    keys = [name for name in dict.fromkeys(chain.from_iterable(found)) if name.startswith("hydra") is hydra]
    value = given[0].partition("=")[2] if given else ""
    if key in keys:
        return f"it belongs to a choice that is swept, so write it as a sweep: '{key}=choice({value or 'VALUE'})'"
    loader = GlobalHydra.instance().config_loader()
    groups = {
        name: loader.get_group_options(name.partition("@")[0], config_name=config, overrides=others)
        for name in cfg.hydra.runtime.choices
        if name.startswith("hydra") is hydra
    }
    return nearest_key(key, value, keys, groups)


def _first_job(overrides: Sequence[str]) -> list[str]:
    """The overrides, swept ones with their first value."""
    return next(_varied_jobs(overrides))


def _varied_jobs(overrides: Sequence[str]) -> Iterator[list[str]]:
    """The overrides of a sweep's first job, and of one more job for each further value."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    values = [
        [f"{part.get_key_element()}={value}" for value in part.sweep_string_iterator()]
        if part.is_sweep_override()
        else [text]
        for part, text in zip(parsed, overrides, strict=True)
    ]
    first = [own[0] for own in values]
    yield first
    for place, own in enumerate(values):
        yield from ([*first[:place], value, *first[place + 1 :]] for value in own[1:])


def _dotted(config: dict[Any, Any], prefix: str = "") -> list[str]:
    """The dotted keys of a configuration, without sections."""
    found = []
    for key, value in config.items():
        found += _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]
    return found
