import numpy as np
import torch

from clray.config import parse_config
from clray.model.encoder import ContrastiveModel
from clray.model.features import compute_features


def test_features_do_not_depend_on_the_batches_and_leave_the_mode_alone() -> None:
    model = ContrastiveModel(
        parse_config({"encoder": {"width": 4}, "head": {"hidden_dim": 8, "embedding_dim": 4}}), 1, 2
    ).train()
    images = torch.randint(256, (10, 1, 8, 8), dtype=torch.uint8)
    rows = torch.arange(10)
    whole = compute_features(model, [(images, rows)], torch.device("cpu"))
    split = compute_features(model, zip(images.split(3), rows.split(3), strict=True), torch.device("cpu"))
    for one, other in zip(whole, split, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert model.training
    for wanted, expected in zip("hz", whole, strict=True):
        (alone,) = compute_features(model, [(images, rows)], torch.device("cpu"), wanted)
        np.testing.assert_array_equal(alone, expected)
