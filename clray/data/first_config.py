"""A first config for images that nobody has trained on yet: commented, and made to run as it stands.

Chooses small over good: what a GPU or more epochs would allow is said in the comments.
"""

import json
import math
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from clray.config import check_key, parse_config
from clray.config.yaml_text import parse_yaml
from clray.data.guess import Guess, guess, shorter_side
from clray.errors import UserError

SCHEMA_PLACES = ("schema.json", "tune_configs/schema.json")
SMALL_IMAGES, GPU_IMAGES = 64, 224
"""Pixels to which images are brought without a GPU, and with one."""
LARGEST_BATCH, FEWEST_BATCHES = 128, 2
IMAGES_PER_CLUSTER, CLUSTERS_PER_CLASS = 8, 5
PLAIN = re.compile(r"[A-Za-z0-9/._-]+")
TEXT = """\
# A first guess at {path}: {summary}.
{notes}#
# Train    clray train {command}
# Compare  clray sweep {command}      (every point of search_space)
# Explain  clray config clusters.num_clusters, or any other key
seed: 0
data:
{data}
augmentation:
  name: simclr  # digits: no mirroring and no colours, for images that mean something else when mirrored
clusters:
  source: kmeans
  num_clusters: {clusters}  # K: {why_clusters}
recluster:
  warmup_epochs: {warmup}  # epochs before the first clustering
encoder:
{encoder}
train:
  num_epochs: {epochs}  # enough for a first look; papers train 200 to 1,000
  global_batch_size: {batch}
{resources}evaluate:
  every_epochs: 5
search_space:
  - clusters.num_clusters: {{grid_search: {granularities}}}
    objective.temperature: {{grid_search: [0.1, 0.5]}}
  - clusters.source: {{grid_search: [{references}]}}  # {reference_names}, to compare with
    objective.temperature: {{grid_search: [0.1, 0.5]}}
{attributes}"""


def write_first_config(
    data: Path, output: Path | None = None, settings: Mapping[str, Any] | None = None
) -> tuple[Path, Guess]:
    """Look at images and write a config that trains on them; an existing file is never touched.

    Args:
        data: a Parquet file or folder of them, a CSV, or a folder of images.
        output: the file to write; by default the data's name with `.yaml`, in the current folder.
        settings: dotted `data.` keys that are known already, such as `data.label_column`.

    Returns:
        The file, and what was found.

    Raises:
        UserError: there are no images, or the file exists or cannot be written.
    """
    output = Path(f"{_name_of(data)}.yaml") if output is None else output
    if os.path.lexists(output):
        raise UserError(f"output: {output} exists; choose another file")
    found = guess(data, _known(settings or {}))
    text = first_config(found, output)
    parse_config(parse_yaml(text, str(output)), str(output))
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"output: {output} exists; choose another file") from None
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}") from error
    return output, found


def _name_of(data: Path) -> str:
    """The data's name, without what a shell or a pattern would take for more."""
    name = data.name if data.suffix in ("", ".") or data.is_dir() else data.stem
    kept = "".join(each if each.isalnum() or each in "-_." else "_" for each in name or data.resolve().name)
    return kept.strip("._") or "clray"


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    known = {}
    for key, value in settings.items():
        check_key(key, "settings")
        section, _, name = key.partition(".")
        if section != "data":
            raise UserError(f"{key}: only data.* keys can be given; set others in the file")
        known[name] = value
    return known


def first_config(found: Guess, output: Path) -> str:
    """The text of a config for what was found."""
    has_gpu = _has_gpu()
    size, why_size = _image_size(found, has_gpu)
    data = {**found.data} if "image_size" in found.data else {**found.data, "image_size": size}
    clusters, why_clusters = _num_clusters(found)
    batch = min(LARGEST_BATCH, max(2, 2 ** int(math.log2(max(2, found.num_train / FEWEST_BATCHES)))))
    references = ["instance", "labels"] if found.all_labelled else ["instance"]
    text = TEXT.format(
        path=_in_comment(found.data["train_path"]),
        summary=_summary(found),
        notes="".join(f"# Note     {_in_comment(note)}\n" for note in found.notes),
        command=_in_comment(shlex.quote(str(output))),
        data=_lines(data, {"image_size": why_size, **_why(found)}),
        clusters=clusters,
        why_clusters=why_clusters,
        warmup=2,
        encoder=_encoder(data["image_size"], has_gpu),
        epochs=20,
        batch=batch,
        resources="  gpus_per_worker: 1\n" if has_gpu else "",
        granularities=_granularities(clusters, found.num_train),
        references=", ".join(references),
        reference_names="InfoNCE and SupCon" if found.all_labelled else "InfoNCE",
        attributes=_attributes(found),
    )
    return _schema_line(output) + text


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _image_size(found: Guess, has_gpu: bool) -> tuple[int, str]:
    """Height and width, and why: that of the images where they are small, else what is quick to train on."""
    side, most = shorter_side(found.sizes), GPU_IMAGES if has_gpu else SMALL_IMAGES
    widths, heights = zip(*found.sizes, strict=True)
    seen = f"{min(widths)}x{min(heights)}"
    if len(set(found.sizes)) > 1:
        seen += f" to {max(widths)}x{max(heights)}"
    why = f"the {len(found.sizes)} images looked at are {seen}{', grey' if found.is_grey else ''}"
    if side <= most:
        return max(4, side), why
    return most, f"{why}; larger sees more and takes longer" if has_gpu else f"{why}; with a GPU take {GPU_IMAGES}"


def _num_clusters(found: Guess) -> tuple[int, str]:
    """K: some clusters for each class, or the square root of the images; never so many that few share one."""
    most = max(2, found.num_train // IMAGES_PER_CLUSTER)
    if found.num_classes:
        wanted, why = CLUSTERS_PER_CLASS * found.num_classes, f"{CLUSTERS_PER_CLASS} for each class"
    else:
        wanted, why = round(math.sqrt(found.num_train)), "the square root of the number of images"
    if max(2, wanted) <= most:
        return max(2, wanted), f"{why}; the search space tries others"
    return most, f"one for every {IMAGES_PER_CLUSTER} images; the search space tries others"


def _granularities(clusters: int, num_train: int) -> list[int]:
    return sorted({max(2, clusters // 4), clusters, max(2, min(4 * clusters, num_train // 2))})


def _encoder(size: int, has_gpu: bool) -> str:
    if not has_gpu:
        return "  name: small_cnn  # with a GPU: resnet18 or resnet50"
    stem = "true" if size <= SMALL_IMAGES else "false"
    return f"  name: resnet18\n  small_image_stem: {stem}"


def _summary(found: Guess) -> str:
    classes = f"in {found.num_classes:,} classes" if found.num_classes else "without labels"
    return f"{found.num_images:,} images {classes}"


def _why(found: Guess) -> dict[str, str]:
    """What is said beside a key of the data section."""
    left_out = {"on_bad_image": "see the notes above; clray data check lists all such images"}
    return left_out if "on_bad_image" in found.data else {}


def _attributes(found: Guess) -> str:
    """A comparison with clusters of attributes, to be switched on, where there are any."""
    lines = []
    if found.attributes:
        number = min(3, len(found.attributes))
        lines += [
            "  # Clusters of the images' attributes, of their most telling ones:",
            "  # - clusters.source: attributes",
            f"  #   clusters.num_attributes: {number}",
        ]
        if found.row_names:
            lines.append(f"  #   clusters.attribute_columns: [{', '.join(map(_scalar, found.attributes))}]")
    if found.row_names:
        lines.append(f"  # Left out, as nearly every row has its own value: {_in_comment(', '.join(found.row_names))}")
    return "".join(f"{line}\n" for line in lines)


def _lines(values: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    return "\n".join(
        f"  {key}: {_scalar(value)}" + (f"  # {_in_comment(comments[key])}" if key in comments else "")
        for key, value in values.items()
    )


def _scalar(value: Any) -> str:
    """As YAML, in quotes where this or another reader would take a text for something else."""
    if not isinstance(value, str):
        return json.dumps(value)
    if PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)


def _in_comment(text: str) -> str:
    """On one line, whatever a file is called."""
    return "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))


def _schema_line(output: Path) -> str:
    """For editors, where the schema lies above the file."""
    folder = output.absolute().parent
    for above in (folder, *folder.parents):
        for place in SCHEMA_PLACES:
            if (above / place).is_file() and '"clray config"' in (above / place).read_text(encoding="utf-8")[:500]:
                return f"# yaml-language-server: $schema={os.path.relpath(above / place, folder)}\n"
    return ""
