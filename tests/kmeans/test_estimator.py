"""`clray.KMeans` as scikit-learn knows an estimator."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans as Reference
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import clray
from clray.errors import UserError

X = np.random.default_rng(0).normal(size=(400, 5)) + np.repeat(np.eye(5) * 9, 80, axis=0)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(
    ("estimator", "check"),
    list(estimator_checks_generator(clray.KMeans(n_clusters=3))),
    ids=lambda each: getattr(getattr(each, "func", each), "__name__", type(each).__name__),
)
def test_passes_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_finds_what_scikit_learn_finds(dtype: type, offset: float) -> None:
    x = (X + offset).astype(dtype)
    ours, reference = clray.KMeans(5, random_state=0).fit(x), Reference(5, n_init=10, random_state=0).fit(x)
    assert ours.inertia_ == pytest.approx(reference.inertia_, rel=1e-3)
    assert ours.cluster_centers_.dtype == dtype
    assert 1 <= ours.n_iter_ <= 20
    np.testing.assert_array_equal(ours.predict(x), ours.labels_)
    np.testing.assert_allclose(ours.transform(x).min(1) ** 2 @ np.ones(len(x)), ours.inertia_, rtol=1e-3)
    assert ours.score(x) == pytest.approx(-ours.inertia_, rel=1e-3)
    assert list(ours.get_feature_names_out()) == [f"kmeans{i}" for i in range(5)]


def test_given_centroids_keep_their_numbers() -> None:
    start = X[[0, 80, 160, 240, 320]]
    fitted = clray.KMeans(5, init=start).fit(X)
    np.testing.assert_array_equal(fitted.labels_, np.repeat(np.arange(5), 80))


def test_goes_into_a_pipeline() -> None:
    labels = make_pipeline(StandardScaler(), clray.KMeans(n_clusters=np.int64(5), random_state=1)).fit_predict(X)
    assert len(np.unique(labels)) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_clusters": 0}, "between 1 and 400"),
        ({"n_clusters": True}, "expected a whole number"),
        ({"n_clusters": 401}, "n_samples=400 should be >= n_clusters=401"),
        ({"max_iter": 0}, "num_iterations must be"),
        ({"init": "first"}, "init must be"),
        ({"init": X[:3]}, r"expected centroids of shapes \[\(8, 5\)\]"),
        ({"tol": -1.0}, "tolerance must be"),
        ({"timeout_seconds": 0.0}, "timeout_seconds must be"),
    ],
)
def test_impossible_parameters_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        clray.KMeans(**settings).fit(X)


def test_prediction_and_score_keep_the_limit_on_silent_shards() -> None:
    fitted = clray.KMeans(n_clusters=3, random_state=0).fit(X).set_params(timeout_seconds=-1.0)
    for use in (fitted.predict, fitted.score):
        with pytest.raises(UserError, match="timeout_seconds must be"):
            use(X)


def test_what_does_not_fit_is_refused_as_scikit_learn_does() -> None:
    with pytest.raises(NotFittedError):
        clray.KMeans().predict(X)
    with pytest.raises(ValueError, match="X has 4 features, but KMeans is expecting 5"):
        clray.KMeans(2).fit(X).predict(X[:, :4])
    with pytest.raises(ValueError, match="NaN"):
        clray.KMeans(2).fit(np.full((9, 2), np.nan))


def test_imports_neither_ray_nor_torch() -> None:
    code = "import sys, clray; clray.KMeans(2).fit([[0.0], [1.0]]); print('ray' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
