"""What the images are: where they are read from, and the random views of them."""

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from clray.config.sections.values import (
    Colour,
    Flag,
    Fraction,
    Momentum,
    NonNegativeFloat,
    NonNegativeFloatOfViews,
    NonNegativeInt,
    Number,
    PositiveFloat,
    PositiveInt,
    Scale,
    ScaleOfViews,
    Section,
    Seed,
    Share,
    ShareOfViews,
    Text,
    TwoOrMore,
)

OF_COLUMNS = ("parquet", "csv", "tar", "embeddings", "imagefolder")
"""What is read from tables whose columns have names."""
PUBLISHED = ("zappos50k", "cub200", "wider_attribute", "imagenet100")
"""Data sets read from the files as their authors distribute them."""
SMALL_VIEWS_OF_SWAV, SMALL_SHARE = 6, 3 / 7
"""SwAV draws 6 small views of 96 pixels beside those of 224 (Caron et al., arXiv 2006.09882)."""


class DataConfig(Section):
    """Which images, labels and attributes."""

    name: Literal[
        "digits", "glyphs", "parquet", "csv", "tar", "embeddings", "cifar10", "cifar100", "fashion_mnist",
        "imagefolder", "zappos50k", "cub200", "wider_attribute", "imagenet100",
    ] = "digits"  # fmt: skip
    """`digits` is embedded (scikit-learn, 8x8), and so are `glyphs`, characters with attributes that are drawn in
    matplotlib's fonts (16x16). `parquet`, `csv` and `tar` (WebDataset) read the user's own images, and
    `embeddings` vectors of another model (`.npy` or Parquet) in their place; `cifar10`, `cifar100`, `fashion_mnist` and
    `imagefolder` come from torchvision; `zappos50k`, `cub200`, `wider_attribute` and `imagenet100` are read from the
    files as they are published."""
    train_path: Text | None = None
    """Parquet or tar file, folder of them or pattern (`data/train-*.parquet`), metadata CSV, or folder of images
    with the training images; of a published data set its folder. In a folder, files or folders that are called `train`
    are for training, those called `test` (or else `validation`) for testing, and `validation` beside both to choose
    by."""
    test_path: Text | None = None
    """The same for the test images; without it, and where `train_path` holds none, `test_fraction` of the training
    images is held out."""
    validation_path: Text | None = None
    """The same for the validation images, which choose: the best trial, `best.pt`, early stopping. Without it, and
    where `train_path` holds none, `validation_fraction` of the training images is held out."""
    labelled_path: Text | None = None
    """The same for a smaller set with labels, where those of `train_path` have none: it is divided into images that
    teach the probe, validation images and, without `test_path`, test images. All of `train_path` is trained on, and its
    labels are left out."""
    image_root: Text | None = None
    """Where the relative paths of a CSV start; the CSV's own folder by default."""
    attributes_path: Text | None = None
    """For `imagefolder`: a CSV whose `path_column` names images below `train_path`, and whose other columns are their
    attributes."""
    labels_path: Text | None = None
    """For `embeddings` in `.npy`: a `.npy` of the training vectors' labels, or of those of `labelled_path`, whole
    numbers or text."""
    test_labels_path: Text | None = None
    """The same for the test vectors."""
    validation_labels_path: Text | None = None
    """The same for the validation vectors."""
    classes_path: Text | None = None
    """For `imagenet100`: another list of WordNet ids, one a line."""
    min_certainty: Annotated[int, Field(ge=1, le=4), Number] = 1
    """For `cub200`: an attribute is present where it was marked so with at least this certainty (4 is definitely)."""
    list_separator: Annotated[Text, Field(min_length=1)] | None = None
    """Splits the text of a column into several values, such as `;` for `red;striped`; labels too."""
    num_bins: TwoOrMore = 4
    """Continuous attributes are cut into so many bins of equal frequency."""
    image_column: Text | None = None
    """Column of the encoded images in Parquet; by default `image`, `img`, or the only one that holds images. In a tar
    the ending of the images' names, where a sample has several."""
    vector_column: Text | None = None
    """Column of the vectors of `embeddings` in Parquet; by default the only one that holds lists of floats."""
    path_column: Text = "path"
    """Column of the images' files in a CSV."""
    label_column: Text | None = None
    """Column of the downstream labels T; by default `class` in CSV, and in Parquet `label`, `labels`, `class`,
    `fine_label`, `target`, or the only one whose classes the file names. In a tar `cls`, or else a field of the
    records by these names. Without such a column the images have no labels; one that is null, empty or -1 has none.
    Lists are several labels an image."""
    label_columns: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """Several columns of labels in place of `label_column`, such as `[species, colour]`. The first is `label_column`;
    what the others tell is measured too, under names that end in theirs (`eval/linear_accuracy/colour`)."""
    image_size: Annotated[int, Field(ge=4, le=16384), Number] | None = None
    """Height and width in pixels after decoding; by default the size of the images, which must then agree."""
    max_pixel_value: PositiveFloat | None = None
    """White in grey images of more than 8 bits; by default the most that their mode holds: 65535 in 16 bits, 2147483647
    in 32-bit integers, 1 in floats. Brighter pixels are refused."""
    background: Colour = "white"
    """What transparent pixels show: a name (`black`) or `'#rrggbb'`."""
    test_fraction: Fraction = 0.25
    """Share of the training images held out for testing where there are no test images."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the training images, after `max_train_images`, that is held out of training to choose by: the best
    trial, `best.pt`, early stopping, what a searcher suggests. With 0 the test images choose and report. It does
    nothing where the data have validation images of their own."""
    split_seed: Seed = 0
    """Chooses the images that are held out, and those of `max_train_images`, `max_test_images` and
    `max_validation_images`."""
    max_train_images: PositiveInt | None = None
    """Use only a random subset of this many training images."""
    max_test_images: PositiveInt | None = None
    """Use only a random subset of this many test images."""
    max_validation_images: PositiveInt | None = None
    """Use only a random subset of this many validation images, where the data have their own."""
    on_bad_image: Literal["error", "skip"] = "error"
    """Whether an image that cannot be decoded stops the run, or is left out and counted."""
    download: Flag = False
    """Let torchvision download its data sets."""
    cache_path: Text | None = None
    """Folder that keeps files from `s3://`, `gs://`, `hf://` and `https://`, and the images of `store: memmap`, for all
    runs of this machine; by default `clray` in the user's folder for caches."""
    cache_limit_gib: PositiveFloat = 50.0
    """Bound of these files, and of those images: the least recently used go first, and come again where they are read
    again."""
    memory_limit_mib: PositiveInt = 4096
    """Decoded images up to this size are held in memory and shared; larger sets are decoded while training."""
    store: Literal["decode", "memmap"] = "decode"
    """What becomes of larger sets: `decode` decodes each image whenever it is trained on; `memmap` decodes all once, to
    `image_size`, into a file below `cache_path` that all runs of a machine share."""
    device_memory_fraction: Share = 0.33
    """Decoded training images lie on the GPU that trains on them where they take at most this share of its free memory;
    others are copied a batch ahead. On a CPU nothing is copied."""
    num_decoders: NonNegativeInt | None = None
    """Threads of each worker that decode images while it trains; Ray is asked for a CPU for each. By default as many as
    `train.cpus_per_worker`, and 2 at least."""
    shuffle_row_groups: PositiveInt = 8
    """Of Parquet files larger than `memory_limit_mib`: images are shuffled within so many row groups at a time, drawn
    at random among those of the worker."""

    @property
    def needs_path(self) -> bool:
        return self.name in (*OF_COLUMNS, *PUBLISHED)

    @property
    def further_columns(self) -> tuple[str, ...]:
        """The columns of labels after the first."""
        return (self.label_columns or ())[1:]

    @model_validator(mode="after")
    def _has_path(self) -> "DataConfig":
        if self.needs_path and self.train_path is None:
            raise ValueError(f"train_path is required for data.name={self.name}; set data.train_path")
        if self.validation_path is not None and (not self.needs_path or self.name in PUBLISHED):
            raise ValueError(f"validation_path: data.name={self.name} takes none; leave data.validation_path out")
        if self.name in PUBLISHED and self.test_path is not None:
            raise ValueError(f"test_path: data.name={self.name} holds its test images itself; leave data.test_path out")
        if self.labelled_path is not None and (not self.needs_path or self.name in PUBLISHED):
            raise ValueError(
                f"labelled_path belongs to images or vectors of your own; data.name={self.name} holds its labels itself"
            )
        if self.attributes_path is not None and self.name != "imagefolder":
            raise ValueError(f"attributes_path belongs to data.name=imagefolder (it is {self.name})")
        for key in ("labels_path", "test_labels_path", "validation_labels_path", "vector_column"):
            if getattr(self, key) is not None and self.name != "embeddings":
                raise ValueError(f"{key} belongs to data.name=embeddings (it is {self.name})")
        if self.name == "embeddings" and self.store != "decode":
            raise ValueError(f"store: data.name=embeddings are vectors, which are not decoded; got {self.store}")
        if self.name == "embeddings" and self.image_size is not None:
            raise ValueError(f"image_size: data.name=embeddings are vectors, which have none; got {self.image_size}")
        return self

    @model_validator(mode="after")
    def _has_each_label_column_once(self) -> "DataConfig":
        columns = self.label_columns or ()
        if columns and self.name not in OF_COLUMNS:
            raise ValueError(f"label_columns belongs to data.name={', '.join(OF_COLUMNS)} (it is {self.name})")
        if columns and self.label_column is not None:
            raise ValueError(
                f"label_columns and label_column={self.label_column} are both set; name all columns with label_columns"
            )
        suffixes = [metric_suffix(name) for name in columns]
        repeated = [name for name, suffix in zip(columns, suffixes, strict=True) if suffixes.count(suffix) > 1]
        if repeated:
            raise ValueError(
                f"label_columns must name each column once, and by names of measures that differ; got "
                f"{', '.join(repeated)}"
            )
        return self


def metric_suffix(column: str | None) -> str:
    """What the names of the measures by a column of labels end in; None is the first, whose end in nothing.

    Of the column's name letters, digits, `_`, `-` and spaces stay, and others become `_`, as MLflow asks.
    """
    return "" if column is None else "/" + re.sub(r"[^\w\- ]", "_", column)


class ViewSettings(NamedTuple):
    """How one of the views of an image is drawn; as the keys of `augmentation` by these names."""

    min_crop_scale: float
    jitter_strength: float
    jitter_probability: float
    grayscale_probability: float
    blur_probability: float
    solarize_probability: float


class AugmentationConfig(Section):
    """Random views: SimCLR's of an image, or those of a vector.

    What may be a list gives one value to each view, in order, and its last to all further views.
    """

    name: Literal["simclr", "swav", "digits", "features"] = "simclr"
    """`swav` is `simclr` with small views. `digits` leaves out flips and colour, which change what a digit is.
    `features`, the default for embeddings, adds `noise` to a vector and drops some of its values."""
    noise: NonNegativeFloat = 0.1
    """Of `features`: deviation of the Gaussian noise, as a share of the root mean square of the vector's values."""
    dropout: Momentum = 0.2
    """Of `features`: share of a vector's values that are set to 0 at random."""
    view_size: Annotated[int, Field(ge=4, le=16384), Number] | None = None
    """Height and width of a view in pixels; by default that of the images. With less, crops are of the larger image
    (`data.image_size: 128`, `view_size: 32`), and the encoder scales whatever it embeds to this size."""
    min_crop_scale: ScaleOfViews = 0.4
    """Smallest area of a random crop, as a share of the image; the largest is all of it."""
    jitter_strength: NonNegativeFloatOfViews = 0.4
    """Brightness, contrast and saturation jitter (hue takes a quarter of it)."""
    jitter_probability: ShareOfViews = 0.8
    """How often a view's colours are jittered."""
    grayscale_probability: ShareOfViews = 0.2
    """How often a view is turned to grey."""
    blur_probability: ShareOfViews = 0.0
    """How often a view is blurred, by a Gaussian over a tenth of the image (SimCLR: 0.5 at 224 pixels; BYOL:
    `[1.0, 0.1]`)."""
    solarize_probability: ShareOfViews = 0.0
    """How often pixels brighter than half are inverted (BYOL: `[0.0, 0.2]`)."""
    num_small_views: Annotated[int, Field(ge=0, le=100), Number] | None = None
    """Further views of each image, small in pixels and in what they show (multi-crop). They are anchors alone: each is
    drawn to the other views, and no view to it. By default 6 of `swav`, and none of the others. In lists they come
    behind the other views."""
    small_view_size: Annotated[int, Field(ge=4, le=16384), Number] | None = None
    """Height and width in pixels of a small view; by default 3/7 of the image, in even numbers (96 of 224)."""
    small_crop_scale: Annotated[tuple[Scale, ...], Field(min_length=2, max_length=2)] | None = None
    """Smallest and largest area of the crop of a small view, as shares of the image; by default from a third of
    `min_crop_scale` to all of it (SwAV: `[0.05, 0.14]`)."""

    @model_validator(mode="after")
    def _has_views_of_images(self) -> "AugmentationConfig":
        if self.name == "features" and self.num_small_views:
            raise ValueError(
                f"num_small_views: vectors have no small views; leave it out for augmentation.name=features, got "
                f"{self.num_small_views}"
            )
        if self.name == "features" and self.view_size:
            raise ValueError(
                f"view_size: vectors have no pixels; leave it out for augmentation.name=features, got {self.view_size}"
            )
        if self.small_crop_scale is not None and self.small_crop_scale[0] > self.small_crop_scale[1]:
            raise ValueError(f"small_crop_scale must be [smallest, largest]; got {list(self.small_crop_scale)}")
        return self

    @property
    def small_views(self) -> int:
        """How many small views an image has."""
        if self.num_small_views is None:
            return SMALL_VIEWS_OF_SWAV if self.name == "swav" else 0
        return self.num_small_views

    @property
    def small_scale(self) -> tuple[float, float]:
        """Smallest and largest area of the crop of a small view."""
        if self.small_crop_scale is None:
            largest = self.of_view(0).min_crop_scale
            return largest / 3, largest
        smallest, largest = self.small_crop_scale
        return smallest, largest

    def size(self, image_size: int) -> int:
        """Height and width of a view, of images of this width."""
        return self.view_size or image_size

    def small_size(self, image_size: int) -> int:
        """Height and width of a small view, of images of this width."""
        return self.small_view_size or max(4, 2 * round(self.size(image_size) * SMALL_SHARE / 2))

    def of_view(self, number: int) -> ViewSettings:
        """What holds for a view, counted from 0."""
        given = (getattr(self, name) for name in ViewSettings._fields)
        return ViewSettings(*(each[min(number, len(each) - 1)] if isinstance(each, tuple) else each for each in given))

    @property
    def listed(self) -> dict[str, int]:
        """The keys that hold a list, and its length."""
        given = {name: getattr(self, name) for name in ViewSettings._fields}
        return {name: len(values) for name, values in given.items() if isinstance(values, tuple)}
