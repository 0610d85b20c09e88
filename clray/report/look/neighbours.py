"""The training images that a run's encoder finds most like an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clray.config.plain import shown
from clray.data.augmentation import to_float
from clray.errors import UserError
from clray.report.html import binary_block, document, json_block, write_whole
from clray.report.look.opened import Finished, as_unit, embed_run, open_run
from clray.report.look.sprites import TILES_A_SIDE, draw_sprites, encoded, fitted
from clray.report.text import as_html, shortened, visible
from clray.training.export import load_model
from clray.training.trained import HasFolder, TrainedEncoder, place_of
from clray.training.workers.gpus import device_beside

LONGEST_NAME, SIDE, QUALITY = 120, 96, 85
SPRITE_BYTES = 5_000_000


@dataclass(frozen=True)
class Neighbour:
    """A training image near the one asked for.

    Attributes:
        row: of the training images.
        distance: 1 - cosine of the representations h: 0 for the same direction, 2 for the opposite.
        label: its class; None where it has none.
    """

    name: str
    row: int
    distance: float
    cluster: int
    label: str | None


def neighbours(
    run: HasFolder | Path | str,
    image: Path | str | int,
    count: int = 12,
    *,
    overrides: Mapping[str, Any] | None = None,
    path: Path | str | None = None,
) -> list[Neighbour]:
    """The training images nearest to an image by the run's encoder, nearest first.

    Example:
        >>> clray.neighbours("outputs/digits", "photo.png", 5)

    Args:
        run: folder of a run or trial, or of a sweep for its best trial.
        image: an image file, or the name or row of a training image, which is then left out of its own neighbours.
        overrides: config values by dotted key, such as `data.train_path` where the data have moved.
        path: also a page of them to write.

    Raises:
        UserError: no such run or image, or data that are not those of the run.
    """
    if count < 1:
        raise UserError(f"count: expected at least 1; got {count}")
    if not isinstance(image, str | int | Path):
        raise UserError(f"image: expected an image file, or the name or row of a training image; got {shown(image)}")
    opened = open_run(place_of(run), overrides)
    if path is not None and not opened.data.train.images.has_pixels:
        raise UserError(f"{opened.folder}: trained on vectors, of which there is nothing to show on a page")
    row = None if Path(str(image)).is_file() else _row_of(opened, str(image))
    query = _decoded(opened, Path(str(image))) if row is None else _pixels(opened, row)
    embedded = embed_run(opened, len(opened.ids))
    device = device_beside(opened.config.train)
    model = load_model(opened.checkpoint, opened.config).to(device).eval()
    with torch.no_grad():
        h = model(query[None].to(device)).h.float().cpu().numpy()
    similar = as_unit(embedded.h) @ as_unit(h)[0]
    order = np.argsort(-similar, kind="stable")
    rows = [int(each) for each in order[: count + 1] if each != row][:count]
    found = [_described(opened, each, float(1 - similar[each])) for each in rows]
    if path is not None:
        _write(opened, str(image), query, found, Path(path))
    return found


def _described(run: Finished, row: int, distance: float) -> Neighbour:
    code = int(run.data.train.labels[row])
    label = run.data.names[None][code] if code >= 0 else None
    return Neighbour(run.data.train.images.name(row), row, max(0.0, distance), int(run.ids[row]), label)


def _row_of(run: Finished, text: str) -> int:
    """The training image of this name or number."""
    images = run.data.train.images
    names = list(images.names())
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(images):
        return int(text)
    raise UserError(
        f"{visible(text)}: no image file, and no training image of this name or row (0 to {len(images) - 1})"
    )


def _pixels(run: Finished, row: int) -> torch.Tensor:
    ((images, _),) = run.data.train.images.batches([np.array([row])], run.config.data)
    return to_float(images)[0]


def _decoded(run: Finished, path: Path) -> torch.Tensor:
    """An image file as the encoder saw its training images, at their size."""
    config, size = run.config.data, run.data.train.images.size
    if config.image_size is None and size is not None and size[0] == size[1]:
        config = config.model_copy(update={"image_size": size[0]})
    as_held = run.config.model_copy(update={"data": config})
    encoder = TrainedEncoder(load_model(run.checkpoint, run.config), as_held, run.checkpoint["num_channels"])
    return encoder.transform(path)


def _write(run: Finished, name: str, query: torch.Tensor, found: Sequence[Neighbour], path: Path) -> Path:
    """A page of an image and its neighbours."""
    rows = np.array([each.row for each in found], np.int64)
    sprites = draw_sprites(run.data.train, rows, run.config.data, most_bytes=SPRITE_BYTES)
    own = fitted((255 * query).round().byte().numpy(), SIDE)
    tree = {
        "side": sprites.side,
        "across": TILES_A_SIDE,
        "images": [
            [
                shortened(each.name, LONGEST_NAME),
                *([] if each.label is None else [shortened(each.label, LONGEST_NAME)]),
                f"cluster {each.cluster}",
                f"distance {each.distance:.3f}",
            ]
            for each in found
        ],
    }
    sheets = "".join(binary_block(f"sheet-{number}", sheet) for number, sheet in enumerate(sprites.sheets))
    body = (
        f"<main><h1>Images like <bdi>{as_html(shortened(name, LONGEST_NAME))}</bdi></h1>"
        f'<p class="note">Of the {len(run.ids):,} training images of <bdi>{as_html(shortened(run.name))}</bdi>, '
        f'nearest first by its encoder.</p><ol class="found"><li class="query"></li></ol></main>'
        f"{json_block('found', tree)}{binary_block('query', encoded(own[None], QUALITY))}{sheets}"
    )
    title = f"Images like {shortened(name)}"
    return write_whole(document(title, body, styles=("page.css", "found.css"), scripts=("found.js",)), path)
