"""Which measure ranks: what the labels of those that teach and those that judge allow."""

from dataclasses import replace

import numpy as np
import pytest

from clray.config import Config, override
from clray.data.images.array import ArrayImages
from clray.data.samples import Dataset, Samples
from clray.errors import UserError
from clray.training.headline import default_metric, with_metric

LABELS = np.arange(12) % 3


def samples(labels: np.ndarray, **targets: np.ndarray) -> Samples:
    return Samples(ArrayImages(np.zeros((len(labels), 1, 8, 8), np.uint8)), labels, {}, targets=targets)


def dataset(teaching: np.ndarray, judging: np.ndarray) -> Dataset:
    return Dataset(samples(teaching), samples(judging), num_classes=3, num_channels=1, names={None: ("a", "b", "c")})


@pytest.mark.parametrize(
    ("teaching", "judging", "metric"),
    [
        (LABELS, LABELS, "eval/linear_accuracy"),
        (LABELS, np.full(12, -1), "eval/rankme"),
        (np.full(12, -1), LABELS, "eval/rankme"),
        # The other values may all have gone to the images that judge.
        (np.where(LABELS == 1, 1, -1), LABELS, "eval/rankme"),
    ],
)
def test_labels_rank_where_they_both_teach_and_judge(teaching: np.ndarray, judging: np.ndarray, metric: str) -> None:
    assert default_metric(dataset(teaching, judging)) == metric


def test_the_labelled_set_teaches_in_the_place_of_the_training_images() -> None:
    data = dataset(np.full(12, -1), LABELS)
    assert default_metric(replace(data, labelled_set=samples(LABELS))) == "eval/linear_accuracy"


def test_points_may_be_ranked_by_a_target_but_by_no_other_attribute() -> None:
    colours = LABELS % 2
    both = samples(LABELS, colour=colours)
    data = replace(dataset(LABELS, LABELS), train=both, test=both, targets={"colour": ("red", "blue")})
    asked = override(Config(), {"sweep.metric": "eval/knn_accuracy/colour"})
    assert with_metric(asked, data).sweep.metric == "eval/knn_accuracy/colour"
    with pytest.raises(UserError, match=r"sweep\.metric=eval/knn_accuracy/colour: the labels of these data tell eval/"):
        with_metric(asked, dataset(LABELS, LABELS))
