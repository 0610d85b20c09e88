"""What the library's functions say of input of the wrong kind: an error a user can act on, and nothing printed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError

import clray

X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
META = torch.empty(60, 4, device="meta")
FITTED = clray.KMeans(n_clusters=np.int64(3), random_state=0).fit(X)
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "unknown key": (lambda: clray.train({"objective": {"temprature": 1}}), "Did you mean 'objective.temperature'"),
    "table as config": (lambda: clray.train(pd.DataFrame(X)), "expected a path, a dict or a Config; got a DataFrame"),
    "array as config": (lambda: clray.sweep(X), "expected a path, a dict or a Config"),
    "overrides": (lambda: clray.train({}, ["a=b"]), "overrides: expected a dict of values by dotted key"),
    "overrides of a sweep": (lambda: clray.sweep({}, 3), "overrides: expected a dict of values by dotted key; got 3"),
    "observer": (lambda: clray.train({}, observer=3), "expected an object of a subclass of clray.Observer; got 3"),
    "name": (lambda: clray.train({}, name=3), "name: expected text; got 3"),
    "text of no file": (lambda: clray.load_config("nowhere.yaml"), "nowhere.yaml: no such config file"),
    "path of no file": (lambda: clray.load_config(Path("nowhere.yaml")), "nowhere.yaml: no such config file"),
    "nothing": (lambda: clray.load_config(None), "expected a path, a dict or a Config; got null"),
    "no run": (lambda: clray.load_encoder("nowhere"), "nowhere: no such checkpoint"),
    "number as run": (lambda: clray.load_encoder(3), "run: expected a result of clray.train, or the path"),
    "array as run": (lambda: clray.load_encoder(X), "run: expected a result of clray.train, or the path"),
    "nothing to look at": (lambda: clray.look(None, "page.html"), "run: expected a result of clray.train, or the path"),
    "nothing to compare": (lambda: clray.neighbours(3, "a.png"), "run: expected a result of clray.train, or the path"),
    "array as image": (lambda: clray.neighbours("nowhere", X), "image: expected an image file, or the name or row"),
    "path as encoder": (lambda: clray.embed("run", "photos"), "encoder: expected what clray.load_encoder gives"),
    "no centroids": (lambda: clray.assign(None, X), "expected an array of floats or the path of a file"),
    "no clustering": (lambda: clray.assign("nowhere", X), "nowhere: holds no finished clustering"),
    "integers": (lambda: clray.cluster((10 * X).astype(np.int32), 3), "expected float16, bfloat16, float32 or float64"),
    "no vectors": (lambda: clray.cluster(X[:0], 3), "neither of them 0; got [0, 4]"),
    "one dimension": (lambda: clray.cluster(X[0], 3), "neither of them 0; got [4]"),
    "tensor of no device": (lambda: clray.cluster(META, 3), "a Tensor that is no array of numbers"),
    "half a cluster": (lambda: clray.cluster(X, 2.5), "num_clusters: expected a whole number"),
    "text as number": (lambda: clray.cluster(X, "3"), "num_clusters: expected a whole number"),
}
SCIKIT: dict[str, tuple[Callable[[], object], type[Exception]]] = {
    "NaN": (lambda: clray.KMeans(3).fit(np.where(X > 1, np.nan, X)), ValueError),
    "empty": (lambda: clray.KMeans(3).fit(X[:0]), ValueError),
    "before fit": (lambda: clray.KMeans(3).predict(X), NotFittedError),
    "other dimension": (lambda: FITTED.predict(X[:, :3]), ValueError),
    "other dimension of distances": (lambda: FITTED.transform(X[:, :3]), ValueError),
    "no device": (lambda: clray.KMeans(3).fit(META), TypeError),
    "no clusters": (lambda: clray.KMeans(0).fit(X), ValueError),
    "too many clusters": (lambda: clray.KMeans(61).fit(X), ValueError),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_library_refuses_it_names(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capfd: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    call, message = REFUSED[case]
    with pytest.raises(clray.UserError) as refused:
        call()
    assert message in str(refused.value)
    assert capfd.readouterr() == ("", "")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("case", SCIKIT)
def test_the_estimator_refuses_as_scikit_learn_does(case: str) -> None:
    call, kind = SCIKIT[case]
    with pytest.raises(kind):
        call()


@pytest.mark.parametrize("convert", [
    pd.DataFrame, np.asfortranarray, torch.from_numpy, lambda x: x.astype(np.float64), lambda x: x.astype(np.float16)
])  # fmt: skip
def test_what_holds_the_same_numbers_gives_the_same_clusters(convert: Callable[[np.ndarray], object]) -> None:
    found = clray.KMeans(n_clusters=3, random_state=0).fit(convert(X))
    assert np.mean(found.labels_ == FITTED.labels_) > 0.9
