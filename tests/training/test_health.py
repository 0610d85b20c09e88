import re

import pytest

from clray.training.health import warn_of_collapse

HEALTHY = {"epoch": 3, "train/embedding_spread": 0.8, "clusters/largest_fraction": 0.2, "clusters/num_clusters": 10}


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"train/embedding_spread": 2e-4}, "x, epoch 3: the embeddings have collapsed: .* is 2.0e-04"),
        ({"clusters/largest_fraction": 0.97}, "x, epoch 3: one cluster holds 97.0 % of the images"),
    ],
)
def test_a_collapse_is_warned_about_with_figures(metrics: dict, message: str, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_collapse(HEALTHY, "x")
    assert not caplog.records
    warn_of_collapse(HEALTHY | metrics, "x")
    assert len(caplog.records) == 1
    assert re.search(message, caplog.text)
