"""Describe photos and add them to a library: `dolglab embed /path/to/photos --library library`."""

from __future__ import annotations

from typing import Annotated

import typer

from dolglab.commands.typer_cli import Allow, Backend, run_command, user_errors
from dolglab.contracts import Colour, Decoding, Engine
from dolglab.errors import UserError

MODEL = (
    "A checkpoint, an exported folder (hf://OWNER/NAME), released weights, dinov2, efficientnet_lite0, or KIND:WHAT "
    "(docs/models.md). By default the library's; for a new one dinov2, or efficientnet_lite0 if its weights cannot be "
    "downloaded."
)
PLACES = "Folders, files, or a prefix such as s3://BUCKET/photos."
LIST = "A file that lists them, one per line or separated by NUL; - for standard input, such as from find."
SHARD = "Describe only part i of n, such as 1/4, to share the work among machines: see `dolglab library merge`."
ENGINE = "Where photos are described: local (this machine), or ray (the nodes of a Ray cluster)."
ADDRESS = "With --engine ray: HOST:PORT, auto (on a node of the cluster), or local (default, this machine's cores)."
STORE = "Where descriptors are stored: flat (default, files in the library), milvus, or a Milvus server's address."
COLOUR = "srgb (default): convert photos from their ICC profiles; ignore: do not. A library keeps its first setting."
DECODING = "scaled (default): decode large JPEGs at reduced size; full: do not. A library keeps its first setting."
SCALES = "Image scales, such as 0.7071,1,1.4142; by default the library's, or 1."
SIDE = "Longer side in pixels to which photos are shrunk; by default the library's, or the model's."
DAMAGED = "Also describe damaged JPEGs, as far as they can be decoded."
EXCLUDE = "A name, or a path within the folder, to leave out, such as thumbs or '2019/*.png'; may be repeated."
AGAIN = "Describe these photos again, even if unchanged; without any, all photos of the library."
KEEP = "Also store local features of the described photos, so that verifying answers reads no photo."
NO_EXIF = "Store no date and place from EXIF, and remove those in the library, such as before passing it on."
METADATA = "A CSV with a column `file`, whose other columns are added to those of the photos that it names."
PLAN = "Only estimate the work, the time and the size."


def main(
    library: Annotated[str, typer.Option(help="The library's folder; created if it does not exist.")],
    places: Annotated[list[str] | None, typer.Argument(help=PLACES)] = None,
    listed: Annotated[str | None, typer.Option("--list", help=LIST)] = None,
    model: Annotated[str | None, typer.Option(help=MODEL)] = None,
    scales: Annotated[str | None, typer.Option(help=SCALES)] = None,
    max_side: Annotated[int | None, typer.Option(help=SIDE, min=1)] = None,
    metadata: Annotated[str | None, typer.Option(help=METADATA)] = None,
    threads: Annotated[int, typer.Option(help="Threads that read and decode.", min=1)] = 2,
    shard: Annotated[str | None, typer.Option(help=SHARD)] = None,
    engine: Annotated[Engine, typer.Option(help=ENGINE)] = "local",
    address: Annotated[str | None, typer.Option(help=ADDRESS)] = None,
    store: Annotated[str | None, typer.Option(help=STORE)] = None,
    backend: Backend = "auto",
    colour: Annotated[Colour | None, typer.Option(help=COLOUR)] = None,
    decoding: Annotated[Decoding | None, typer.Option(help=DECODING)] = None,
    damaged: Annotated[bool, typer.Option("--damaged", help=DAMAGED)] = False,
    exclude: Annotated[list[str] | None, typer.Option(help=EXCLUDE)] = None,
    again: Annotated[bool, typer.Option("--again", help=AGAIN)] = False,
    keep_local: Annotated[bool, typer.Option("--keep-local", help=KEEP)] = False,
    no_exif: Annotated[bool, typer.Option("--no-exif", help=NO_EXIF)] = False,
    plan: Annotated[bool, typer.Option("--plan", help=PLAN)] = False,
    allowed: Allow = None,
) -> None:
    """Describe photos and store the descriptors in a library, for `search`, `serve` and `library`.

    Only new and changed photos are described. If it is stopped, the same command resumes it.
    """
    with user_errors("stopped; the same command resumes it"):
        from dolglab.data.addresses import allow
        from dolglab.library.ingest import embed_places

        allow(allowed or ())
        embed_places(
            places or (),
            library,
            listed=listed,
            model=model,
            scales=None if scales is None else parse_scales(scales),
            max_side=max_side,
            colour=colour,
            decoding=decoding,
            damaged=damaged,
            metadata=metadata,
            threads=threads,
            shard=shard,
            engine=engine,
            address=address,
            store=store,
            backend=backend,
            exclude=exclude or (),
            again=again,
            plan=plan,
            keep_local=keep_local,
            no_exif=no_exif,
        )


def parse_scales(text: str) -> list[float]:
    """Numbers separated by commas. Raises UserError for anything else.

    >>> parse_scales("0.7071,1")
    [0.7071, 1.0]
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--scales must be numbers separated by commas, such as 0.7071,1, not {text}") from None


EXAMPLES = (
    "dolglab embed /path/to/photos --library library",
    "dolglab embed /path/to/photos --library library --plan",
    "dolglab embed /path/to/photos --library library --model outputs/mine/checkpoints/best.ckpt",
    "dolglab embed data/demo_world/test/jpg --library demo  (after make demo)",
)

if __name__ == "__main__":
    run_command("embed", main, EXAMPLES)
