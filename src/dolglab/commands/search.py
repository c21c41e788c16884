"""Search a library by photo: `dolglab search /path/to/photo.jpg --library library`."""

from __future__ import annotations

from typing import Annotated

import typer

from dolglab.commands.typer_cli import Allow, Backend, run_command, user_errors

LEAST = "Only photos with at least this cosine."
RERANK = (
    "spatial: re-rank the first answers by the inliers of matched local features (XFeat if installed, else RootSIFT)."
)
WHERE = "Only photos with this value in a column: such as place=Rome or taken=2019-05..2019-08; may be repeated."
EXACT = "Compare all photos; in a large library, only candidates selected by codes are compared by default."
EXPLAIN = "Print the parts of each cosine and the number of matching local features; with --html, show them."


def main(
    queries: Annotated[list[str], typer.Argument(help="Photos to search for, or folders of them.")],
    library: Annotated[str, typer.Option(help="The library's folder.")],
    top: Annotated[int, typer.Option(help="Number of answers per query.", min=1)] = 20,
    box: Annotated[str | None, typer.Option(help="Search for this part only: x1,y1,x2,y2 in pixels.")] = None,
    where: Annotated[list[str] | None, typer.Option(help=WHERE)] = None,
    min_cosine: Annotated[float, typer.Option("--least", help=LEAST, min=-1, max=1)] = -1.0,
    rerank: Annotated[str | None, typer.Option(help=RERANK)] = None,
    exact: Annotated[bool, typer.Option("--exact", help=EXACT)] = False,
    explain: Annotated[bool, typer.Option("--explain", help=EXPLAIN)] = False,
    backend: Backend = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[str | None, typer.Option(help="Write a page with thumbnails to this file.")] = None,
    allowed: Allow = None,
) -> None:
    """Print the photos of a library most similar to a photo, with the cosines of their descriptors."""
    with user_errors():
        from dolglab.data.addresses import allow
        from dolglab.library.search_results import search_photos

        allow(allowed or ())
        search_photos(
            queries,
            library,
            top=top,
            box=box,
            where=where or (),
            min_cosine=min_cosine,
            rerank=rerank,
            exact=exact,
            explain=explain,
            as_json=as_json,
            html=html,
            backend=backend,
        )


EXAMPLES = (
    "dolglab search /path/to/photo.jpg --library library",
    "dolglab search /path/to/photo.jpg --library library --html answers.html --explain",
    "dolglab search /path/to/photo.jpg --library library --box 100,50,300,250",
    "dolglab search /path/to/photo.jpg --library library --rerank spatial --top 50",
)

if __name__ == "__main__":
    run_command("search", main, EXAMPLES)
