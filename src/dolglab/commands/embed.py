"""Describe photos and keep them in a library: `dolglab embed /path/to/photos --library library`."""

from __future__ import annotations

from typing import Annotated

import typer

from dolglab.commands.typer_cli import Allow, Backend, run_command, user_errors
from dolglab.contracts import Colour, Decoding, Engine
from dolglab.errors import UserError

MODEL = "A checkpoint, an exported folder (hf://OWNER/NAME), released weights, dinov2, or KIND:WHAT (docs/models.md)."
PLACES = "Folders, files, or a prefix such as s3://BUCKET/photos."
LIST = "A file that names them, one a line or with NUL between them; - for standard input, as from find."
SHARD = "Only part i of n, such as 1/4, where several machines share the work: see `dolglab library merge`."
ENGINE = "What describes the photos: local, this machine, or ray, the nodes of a Ray cluster."
ADDRESS = "Of --engine ray: HOST:PORT, auto on a node of the cluster, or local (default), this machine's cores."
STORE = "Where descriptors lie: flat (default), files in the library; milvus; the address of a Milvus server."
COLOUR = "srgb (default) converts photos from their ICC profiles, ignore does not; a library goes on as it began."
DECODING = "scaled (default) decodes large JPEGs at a scale of libjpeg's, full all of them; a library goes on."
SCALES = "Scales of each photo, such as 0.7071,1,1.4142; the library's, or 1."
SIDE = "Photos are shrunk to so many pixels; the library's, or those that the model says it is used at."
DAMAGED = "Describe damaged JPEGs too, as far as they can be read."
EXCLUDE = "A name, or a path below the folder, that is left out, such as thumbs or '2019/*.png'; may be repeated."
AGAIN = "Describe these photos anew, also those that have not changed; without any, all of the library."
KEEP = "Keep local features too, of photos that are described: verifying answers then opens no photo."
NO_EXIF = "Hold no date and place of photos' EXIF, and take out those that the library holds: for what is passed on."
PLAN = "Say what there is to do, how long it takes and how large it gets; do nothing."


def main(
    library: Annotated[str, typer.Option(help="The library's folder; made where there is none.")],
    places: Annotated[list[str] | None, typer.Argument(help=PLACES)] = None,
    listed: Annotated[str | None, typer.Option("--list", help=LIST)] = None,
    model: Annotated[str | None, typer.Option(help=MODEL)] = None,
    scales: Annotated[str | None, typer.Option(help=SCALES)] = None,
    max_side: Annotated[int | None, typer.Option(help=SIDE, min=1)] = None,
    metadata: Annotated[str | None, typer.Option(help="A CSV with a column `file` and any others.")] = None,
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
    """Describe photos and keep the descriptors in a library, for search, serve and library.

    Only photos that are new or changed are described. If it is stopped, the same command goes on.
    """
    with user_errors("stopped: the same command goes on"):
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
    """Numbers with commas between them. Raises UserError for anything else.

    >>> parse_scales("0.7071,1")
    [0.7071, 1.0]
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--scales wants numbers with commas between them, such as 0.7071,1, not {text}") from None


EXAMPLES = (
    "dolglab embed /path/to/photos --library library",
    "dolglab embed /path/to/photos --library library --plan",
    "dolglab embed /path/to/photos --library library --model outputs/mine/checkpoints/best.ckpt",
    "dolglab embed data/demo_world/test/jpg --library demo  (after make demo)",
)

if __name__ == "__main__":
    run_command("embed", main, EXAMPLES)
