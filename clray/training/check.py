"""What a run's data rule out: settings that fit no data of this size or kind. Builds nothing."""

from clray.clusters.assignment import ClusterAssignment
from clray.config import Config
from clray.data.loaders import shard_indices
from clray.data.samples import Dataset, Samples
from clray.errors import UserError
from clray.training.objectives.build import objective_class


def check_against_data(config: Config, data: Dataset) -> None:
    """Raise UserError for settings that these data rule out; costs nothing."""
    num_images = len(data.train)
    most = max(config.clusters.counts)
    if config.clusters.source == "kmeans" and most > num_images:
        raise UserError(
            f"clusters.num_clusters must be at most {num_images} (the training images); got {most}. Lower it in the "
            f"config or with clusters.num_clusters={num_images}"
        )
    if num_images < 2 * config.train.num_workers:
        raise UserError(
            f"train.num_workers must leave each worker at least 2 of the {num_images} training images; "
            f"got {config.train.num_workers}"
        )
    if data.train.images.is_sequential:
        _check_streamed(config, data)
    _check_image_size(config, data)
    _check_views(config, data)


def check_classes(config: Config, assignments: tuple[ClusterAssignment, ...]) -> None:
    """Raise UserError where a classification would have nothing to tell apart."""
    if config.objective.is_classification and min(each.num_clusters for each in assignments) < 2:
        raise UserError(
            f"objective.name={config.objective.name}: all {len(assignments[0])} training images are in one cluster, so "
            "that there is nothing to predict; choose other clusters"
        )


def pixel_size(samples: Samples) -> tuple[int, int]:
    """Height and width in pixels of the images."""
    size = samples.images.size
    assert size is not None, "load_dataset requires image_size for data decoded while training"
    return size


def view_shape(config: Config, data: Dataset) -> tuple[int, int, int]:
    """Channels, height and width of a view that training draws."""
    side = config.augmentation.size(pixel_size(data.train)[1])
    return data.num_channels, side, side


def _check_image_size(config: Config, data: Dataset) -> None:
    """A vision transformer has as many positions as its images have patches."""
    height, width = pixel_size(data.train)
    wanted = config.encoder.image_size or 224
    is_scaled = config.encoder.weights is not None or config.encoder.mean is not None or config.augmentation.view_size
    if config.encoder.name == "vit_s16" and not is_scaled and (height, width) != (wanted, wanted):
        raise UserError(
            f"encoder.image_size={wanted}, but the images are {width}x{height} pixels; set data.image_size and "
            "encoder.image_size to the same multiple of 16"
        )


def _check_views(config: Config, data: Dataset) -> None:
    """Lists of settings name views that there are, and small views are smaller than the others."""
    augmentation, width = config.augmentation, pixel_size(data.train)[1]
    if augmentation.listed:
        key, number = max(augmentation.listed.items(), key=lambda each: each[1])
        large, small = objective_class(config.objective).num_views, augmentation.small_views
        if number > large + small:
            raise UserError(
                f"augmentation.{key} has {number} values, and objective.name={config.objective.name} has "
                f"{large + small} views of an image; give one value a view at most"
            )
    size, small_size = augmentation.size(width), augmentation.small_size(width)
    if size > width:
        raise UserError(
            f"augmentation.view_size={size}: the images are {width} pixels wide; raise data.image_size, or choose less"
        )
    if augmentation.small_views and small_size > size:
        raise UserError(f"augmentation.small_view_size={small_size}: the views are of {size} pixels; choose less")
    is_scaled = config.encoder.weights is not None or config.encoder.mean is not None or augmentation.view_size
    if augmentation.small_views and config.encoder.name == "vit_s16" and not is_scaled:
        raise UserError(
            f"augmentation.num_small_views={augmentation.small_views}: encoder.name=vit_s16 takes images of one size; "
            "scale all views to it with encoder.mean=[0.5] and encoder.std=[0.5], or choose another encoder"
        )


def _check_streamed(config: Config, data: Dataset) -> None:
    objective = config.objective
    pairs = f"objective.name={objective.name}" if objective.is_own else f"objective.form={objective.form}"
    for setting, draws_anywhere in (
        (f"train.sampler={config.train.sampler}", config.train.sampler == "cluster"),
        (pairs, objective_class(objective).draws_pairs),
    ):
        if draws_anywhere:
            raise UserError(
                f"{setting} draws images from anywhere in the data, and these are read from their files by row "
                "groups; raise data.memory_limit_mib if there is memory, or choose another"
            )
    smallest = min(map(len, shard_indices(data.train, config.train.num_workers)))
    if 2 * smallest * config.train.num_workers < len(data.train):
        raise UserError(
            f"train.num_workers={config.train.num_workers}: a worker reads whole row groups, and one would have only "
            f"{smallest} of {len(data.train)} images; write smaller row groups, or use fewer workers"
        )
