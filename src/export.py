"""Write a model for sharing: `python -m src.export --checkpoint outputs/NAME/checkpoints/best.ckpt --out model`."""

from __future__ import annotations

from typing import Annotated

import typer

from src.errors import InputError


def main(
    out: Annotated[str, typer.Option(help="Folder to write, which must not exist or be empty.")],
    checkpoint: Annotated[str | None, typer.Option(help="A checkpoint of a training run.")] = None,
    released: Annotated[str | None, typer.Option(help="A released DOLG file (.pyth), or hf://OWNER/NAME/FILE.")] = None,
) -> None:
    """Write tensors as safetensors and what they are as JSON; `python -m src.evaluate checkpoint=OUT` reads them."""
    try:
        if (checkpoint is None) == (released is None):
            raise InputError("give --checkpoint FILE or --released FILE, one of them")
        from src.models.released import read_released
        from src.training.exported import export_checkpoint, export_released

        written = (
            export_checkpoint(checkpoint, out) if checkpoint else export_released(read_released(str(released)), out)
        )
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"model: {written}")


if __name__ == "__main__":
    typer.run(main)
