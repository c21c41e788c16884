"""The options of `python -m src.library`."""

from __future__ import annotations

from typing import Annotated

import typer

NEAR = "Cosine from which on two photos are near-duplicates; what is right depends on the model."
SURE = "Cosine below which a photo is unknown; by default one that 95 % of photos with other names do not reach."

Folder = Annotated[str, typer.Option(help="The library's folder.")]
Table = Annotated[str, typer.Option(help="The table to write, a CSV.")]
Bad = Annotated[bool, typer.Option("--bad", help="Name what could not be read.")]
Photos = Annotated[list[str] | None, typer.Argument(help="Photos, by their paths or addresses.")]
Gone = Annotated[bool, typer.Option("--gone", help="Those whose files are no longer there.")]
Near = Annotated[float, typer.Option(help=NEAR)]
Column = Annotated[str, typer.Option(help="The column that has the names of some photos.")]
Neighbours = Annotated[int, typer.Option(help="How many of the nearest photos with a name vote.")]
Sure = Annotated[float | None, typer.Option(help=SURE)]
Write = Annotated[bool, typer.Option("--write", help="Put the names into the library's column too.")]
Sources = Annotated[list[str], typer.Argument(help="Libraries; they stay as they are.")]
Target = Annotated[str, typer.Option(help="The library that takes them in; made where there is none.")]
