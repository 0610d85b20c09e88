import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from clray.errors import UserError
from clray.report.look.places import as_method, map_vectors, principal_directions


@pytest.mark.parametrize("shape", [(1, 5), (2, 3), (60, 1), (100, 8)])
def test_places_lie_in_a_square_whatever_the_vectors(shape: tuple[int, int]) -> None:
    places, title = map_vectors(np.random.default_rng(0).normal(size=shape).astype(np.float32), "pca", 0)
    assert places.shape == (shape[0], 2)
    assert ((places >= 0) & (places <= 1)).all()
    assert "PCA" in title


def test_an_unknown_way_of_mapping_is_refused() -> None:
    with pytest.raises(UserError, match="expected one of auto, pca, umap, tsne"):
        as_method("lda")


def test_a_way_that_is_not_installed_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"clray\[map\]"):
        as_method("umap")
    assert "PCA" in map_vectors(np.eye(60, dtype=np.float32), "auto", 0)[1]


def test_a_folder_of_the_name_of_a_package_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("umap", "openTSNE"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "umap", raising=False)
    importlib.invalidate_caches()
    for method in ("umap", "tsne"):
        with pytest.raises(UserError, match="not installed"):
            as_method(method)


def test_vectors_that_are_all_equal_lie_in_one_place_without_a_warning() -> None:
    vectors = np.full((24, 8), 0.25, np.float32)  # exact, so that the variance is 0
    assert np.ptp(map_vectors(vectors, "pca", 0)[0], axis=0).max() == 0
    assert not principal_directions(vectors, 2).any()
