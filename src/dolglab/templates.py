"""Templates of pages and cards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template


def template(path: Path, **filters: Callable[..., Any]) -> Template:
    """The template in a file; NAME.html.j2 escapes its values. A missing value raises an error."""
    environment = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=path.name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters
    return environment.get_template(path.name)
