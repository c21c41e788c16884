"""Write a model for sharing: `dolglab export --checkpoint outputs/NAME/checkpoints/best.ckpt --out model`."""

from __future__ import annotations

from typing import Annotated

import typer

from dolglab.commands.typer_cli import run_command, user_errors

RELEASED = "A released DOLG file (.pyth), hf://OWNER/NAME/FILE, or KIND:FILE of another (docs/models.md)."
LIBRARY = "A library: its network, with its adapter if it has one."
CARD = "A result card of this checkpoint; may be repeated. By default that of its run."
LICENCE = "Licence of these weights, by its name on the hub, such as mit or cc-by-4.0."
ONNX = "Also write model.onnx, for RGB images of any size with values 0..255."
NORMALISED = "The ONNX file takes normalised images."
CALIBRATE = "Typical photos, from which --int8 is calibrated."


def main(
    out: Annotated[str, typer.Option(help="Folder to write, which must not exist or be empty.")],
    checkpoint: Annotated[str | None, typer.Option(help="A checkpoint of a training run.")] = None,
    released: Annotated[str | None, typer.Option(help=RELEASED)] = None,
    library: Annotated[str | None, typer.Option(help=LIBRARY)] = None,
    card: Annotated[list[str] | None, typer.Option(help=CARD)] = None,
    licence: Annotated[str | None, typer.Option(help=LICENCE)] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help=ONNX)] = False,
    normalised_input: Annotated[bool, typer.Option("--normalised-input", help=NORMALISED)] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Also write model.int8.onnx.")] = False,
    calibrate: Annotated[str | None, typer.Option(help=CALIBRATE)] = None,
    push: Annotated[str | None, typer.Option(help="Upload to OWNER/NAME on the Hugging Face hub.")] = None,
    private: Annotated[bool, typer.Option("--private", help="With --push: make the repository private.")] = False,
) -> None:
    """Write a model as a folder to share: weights, configuration and model card.

    `dolglab.load` and every command that takes a model can read it.
    """
    with user_errors():
        from dolglab.sharing.export import export

        export(
            out,
            checkpoint=checkpoint,
            released=released,
            library=library,
            cards=card or (),
            licence=licence,
            onnx=onnx,
            normalised_input=normalised_input,
            int8=int8,
            calibrate=calibrate,
            push=push,
            private=private,
        )


EXAMPLES = (
    "dolglab export --checkpoint outputs/mine/checkpoints/best.ckpt --out model",
    "dolglab export --checkpoint outputs/mine/checkpoints/best.ckpt --out model --onnx --licence mit --push OWNER/NAME",
    "dolglab export --library library --out model",
)

if __name__ == "__main__":
    run_command("export", main, EXAMPLES)
