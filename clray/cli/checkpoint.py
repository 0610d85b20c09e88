"""clray evaluate | export | embed: what is done with a checkpoint; parsing and printing only."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clray.cli.options import AsJson, Assignments, read_settings
from clray.cli.terminal import print_values, status
from clray.config import Config, stored_config
from clray.errors import UserError

if TYPE_CHECKING:
    from clray.training.checkpoint_form import Checkpoint

CheckpointPath = Annotated[Path, typer.Argument(help="A checkpoint.pt, or the folder of a run.")]


class Layer(StrEnum):
    """Which output of the model."""

    h = "h"
    z = "z"


def evaluate(checkpoint: CheckpointPath, assignments: Assignments = None, as_json: AsJson = False) -> None:
    """Linear probe and nearest neighbours of a checkpoint; --set evaluate.* or data.* changes the protocol."""
    with status("evaluating", quiet=as_json):
        saved, config = _read(checkpoint, assignments or [])
        from clray.data.load import check_files
        from clray.data.parts import load_parts
        from clray.training.accuracy import evaluate_checkpoint

        check_files(config.data)
        metrics = evaluate_checkpoint(saved, config, load_parts(config.data, config.evaluate.targets))
    print_values(metrics, as_json=as_json)


def export(
    checkpoint: CheckpointPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file.")] = Path(
        "encoder.safetensors"
    ),
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Write the encoder as a plain state_dict (safetensors), with what is needed to build it."""
    _refuse_existing(output)
    saved, config = _read(checkpoint, assignments or [])
    from clray.training.export import export_encoder

    metadata = export_encoder(saved, config, output)
    print_values({"encoder": str(output), **metadata}, as_json=as_json)


def embed(
    checkpoint: CheckpointPath,
    data: Annotated[Path | None, typer.Argument(help="Parquet, CSV or folder of images.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npy file.")] = Path("embeddings.npy"),
    layer: Annotated[Layer, typer.Option(help="The representation h, or the projection head's z.")] = Layer.h,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Embed every image of a data set, in its order; without DATA the training images of the run."""
    _refuse_existing(output)
    saved, config = _read(checkpoint, assignments or [])
    with status("embedding", quiet=as_json):
        from clray.data.load import check_files, load_images, reading_of
        from clray.data.parts import load_parts
        from clray.training import export as exports

        if data is None:
            check_files(config.data)
            images = load_parts(config.data, config.evaluate.targets).train
        else:
            chosen = reading_of(config.data, data)
            check_files(chosen)
            images = load_images(chosen)
        shape = exports.embed(saved, config, images, output, layer.value)
    print_values({"embeddings": str(output), "rows": shape[0], "dim": shape[1]}, as_json=as_json)


def _read(checkpoint: Path, assignments: list[str]) -> "tuple[Checkpoint, Config]":
    if not checkpoint.exists():
        raise UserError(f"{checkpoint}: no such checkpoint; give a checkpoint.pt or the folder of a run")
    overrides = read_settings(assignments)
    from clray.training.checkpoint import read_checkpoint

    saved = read_checkpoint(checkpoint)
    return saved, stored_config(saved.get("config"), overrides, checkpoint)


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} exists; choose another file with --output")
