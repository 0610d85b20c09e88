"""Whether a data set is whole: what was found beside what was published, and every image that cannot be read."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from clray.config.sections import DataConfig
from clray.data.equal_images import notes_on_equal_images
from clray.data.images.port import OnCount
from clray.data.labelled import read_parts
from clray.data.labels import Labels, notes_on_labels, read_labels
from clray.data.load import NAMES
from clray.data.readers.columns import joined
from clray.data.readers.published import SOURCES
from clray.data.readers.registry import READERS
from clray.data.readers.split import Split
from clray.errors import UserError

MAX_PROBLEMS = 20
OnImage = Callable[[int, int], None]
"""Hears of images looked at, and of how many there are."""


@dataclass(frozen=True)
class Finding:
    """A count, beside the published one where there is one."""

    name: str
    found: int
    published: int | None = None

    @property
    def is_right(self) -> bool:
        return self.published is None or self.found == self.published


@dataclass(frozen=True)
class DataReport:
    """What is there.

    Attributes:
        problems: images that cannot be read, with the reason, the first 20 of `num_bad`.
        notes: what is no error but should be known.
        obtained: where a complete copy is had, if something is missing.
    """

    findings: tuple[Finding, ...]
    num_bad: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    obtained: str | None

    @property
    def is_whole(self) -> bool:
        return self.num_bad == 0 and all(each.is_right for each in self.findings)


def check_data(config: DataConfig, *, num_threads: int = 4, on_image: OnImage | None = None) -> DataReport:
    """Count everything and decode every image.

    Raises:
        UserError: the data are not there, or not in the layout that `data.name` means.
    """
    read = read_parts(config.model_copy(update={"on_bad_image": "skip"}))
    columns = {name: values for name, values in read["train"].columns.items() if name not in config.further_columns}
    train = replace(read["train"], columns=columns)
    parts = [(f"{NAMES[part]} images", split) for part, split in read.items()]
    teachers = next(iter(read.values()))
    total = sum(len(part.labels) for _, part in parts)
    labels = read_labels(joined(*(part.labels for part in read.values())), config.list_separator)
    num_unlabelled = int((labels.codes < 0).sum())
    source = SOURCES.get(config.name)
    # A list of the user's own has as many classes as it has.
    num_classes = source.num_classes if source and config.classes_path is None else None
    findings = [
        Finding("images", total, source.num_images if source else None),
        *(Finding(name, len(part.labels)) for name, part in parts),
        Finding("classes" if labels.flags is None else "labels", len(labels.labels), num_classes),
        *([Finding("images without a label", num_unlabelled)] if num_unlabelled else []),
        Finding("attributes", len(train.columns), source.num_attributes if source else None),
    ]
    problems = list(dict.fromkeys(reason for _, part in parts for reason in part.skipped))
    done = 0
    for _, part in parts:
        problems += part.images.bad(num_threads, _counting(on_image, done, total))
        done += len(part.labels)
    notes = (
        *dict.fromkeys(note for _, part in parts for note in part.notes),
        *_notes(train, labels, len(teachers.labels)),
    )
    notes = (*notes, *notes_on_equal_images(train.images))
    is_whole = not problems and all(each.is_right for each in findings)
    obtained = source.obtained if source and not is_whole else None
    return DataReport(tuple(findings), len(problems), tuple(problems[:MAX_PROBLEMS]), notes, obtained)


def _counting(on_image: OnImage | None, before: int, total: int) -> OnCount | None:
    return None if on_image is None else lambda count: on_image(before + count, total)


def _notes(train: Split, labels: Labels, num_teachers: int) -> list[str]:
    """Args: `labels` of the images that teach, so many, and then of the others."""
    notes = notes_on_labels(labels, num_teachers)
    missing = {name: int(values.isna().sum()) for name, values in train.columns.items() if values.isna().any()}
    if missing:
        worst = max(missing, key=lambda name: missing[name])
        notes.append(
            f"{len(missing)} attributes are missing for some images, most often {worst} ({missing[worst]}); a missing "
            "value is a value of its own"
        )
    return notes


def require_known(name: str) -> None:
    """Raise UserError where there is no data set of this name."""
    if name not in READERS:
        raise UserError(f"no data set {name!r}; there are: {', '.join(READERS)}")
