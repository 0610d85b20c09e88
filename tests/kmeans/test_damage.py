"""Damaged files of a clustering: each is read as it was written, or named with the way out; nothing in between."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clray.clusters.saved import open_clustering
from clray.errors import UserError
from clray.kmeans.engine import cluster
from clray.kmeans.progress import Progress

VECTORS = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32) + 100
LEVELS = [6, 2]
NUM_VARIANTS = 150


def interrupted(folder: Path) -> None:
    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cluster(VECTORS, LEVELS, use_ray=False, output=folder, on_iteration=interrupt)


def damage_bytes(path: Path, rng: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    kind = rng.integers(5)
    if kind == 0:
        data = data[: rng.integers(len(data))]
    elif kind == 1:
        for place in rng.integers(len(data), size=rng.integers(1, 4)):
            data[place] ^= 1 << rng.integers(8)
    elif kind == 2:
        start = rng.integers(len(data))
        data[start : start + 40] = rng.bytes(40)
    elif kind == 3:
        data = bytearray(rng.bytes(rng.integers(200)))
    else:
        path.unlink()
        path.mkdir()
        return
    path.write_bytes(data)


def damage_tree(path: Path, rng: np.random.Generator) -> None:
    """Drop or replace a value anywhere in a JSON file."""
    tree = json.loads(path.read_text())
    places: list[tuple[dict | list, str | int]] = []

    def walk(node: object) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in list(items):
            places.append((node, key))
            walk(value)

    walk(tree)
    node, key = places[rng.integers(len(places))]
    if rng.integers(2):
        del node[key]
    else:
        node[key] = [None, "x", -1, 10**30, 1.5, [], {}, True][rng.integers(8)]
    path.write_text(json.dumps(tree))


def read_all(folder: Path) -> list[np.ndarray]:
    saved = open_clustering(folder)
    return [each for k in LEVELS for each in (saved.ids(k), saved.centroids(k))]


def outcome(read: Callable[[], Any]) -> tuple[Any, str]:
    """What was read, or None and the message of the refusal; any other exception is a fault."""
    try:
        return read(), ""
    except UserError as error:
        return None, str(error)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "c"
    cluster(VECTORS, LEVELS, nested=True, use_ray=False, output=folder)
    return folder


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("clustering.json", damage_tree),
        ("clustering.json", damage_bytes),
        ("k6/assignments.npy", damage_bytes),
        ("k2/centroids.npy", damage_bytes),
    ],
)
def test_a_damaged_result_is_named_or_read_as_it_was_written(
    finished: Path, tmp_path: Path, name: str, damage: Callable[[Path, np.random.Generator], None]
) -> None:
    expected, refused = read_all(finished), 0
    for seed in range(NUM_VARIANTS):
        folder = tmp_path / str(seed)
        shutil.copytree(finished, folder)
        damage(folder / name, np.random.default_rng(seed))
        found, message = outcome(lambda folder=folder: read_all(folder))
        if found is None:
            assert str(folder) in message
            assert "\n" not in message
            refused += 1
        else:
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)
    assert refused > NUM_VARIANTS / 10


def test_a_damaged_state_is_named_or_gives_the_same_result(tmp_path: Path) -> None:
    expected, whole = cluster(VECTORS, LEVELS, use_ray=False), tmp_path / "whole"
    interrupted(whole)
    for seed in range(NUM_VARIANTS):
        folder = tmp_path / str(seed)
        shutil.copytree(whole, folder)
        damage_bytes(folder / "state.npz", np.random.default_rng(seed))
        found, message = outcome(
            lambda folder=folder: cluster(VECTORS, LEVELS, use_ray=False, output=folder, resume=True)
        )
        if found is None:
            assert "state.npz is damaged" in message or "was started with another" in message
        else:
            np.testing.assert_array_equal(found.centroids, expected.centroids)


@pytest.mark.parametrize("key", ["about", "centroids_0", "centroids_1", "origin"])
@pytest.mark.parametrize("value", [None, "missing", 7, "text", np.zeros((2, 9), np.float32), np.full((6, 4), np.nan)])
def test_a_state_of_other_parts_is_refused(tmp_path: Path, key: str, value: object) -> None:
    interrupted(tmp_path)
    with np.load(tmp_path / "state.npz") as saved:
        parts = {name: saved[name] for name in saved.files}
    if isinstance(value, str) and value == "missing":
        del parts[key]
    else:
        parts[key] = np.array(value)
    np.savez(tmp_path / "state.npz", **parts)
    if key == "origin" and isinstance(value, str) and value == "missing":
        return  # as in states that were written without one
    with pytest.raises(UserError, match=r"state\.npz is damaged"):
        cluster(VECTORS, LEVELS, use_ray=False, output=tmp_path, resume=True)


def test_a_folder_without_checksums_is_read(finished: Path, tmp_path: Path) -> None:
    """As they were written before, and as a user makes them by hand."""
    shutil.copytree(finished, tmp_path / "c")
    tree = json.loads((tmp_path / "c" / "clustering.json").read_text())
    del tree["checksums"]
    (tmp_path / "c" / "clustering.json").write_text(json.dumps(tree))
    np.save(tmp_path / "c" / "k6" / "assignments.npy", np.zeros(60, np.int64))
    assert open_clustering(tmp_path / "c").ids(6).tolist() == [0] * 60
    np.save(tmp_path / "c" / "k6" / "assignments.npy", np.full(60, 6))
    with pytest.raises(UserError, match=r"assignments\.npy: damaged \(ids must be in -1\.\.5; got 6\.\.6\)"):
        open_clustering(tmp_path / "c").ids(6)


def test_two_clusterings_do_not_write_into_one_folder(tmp_path: Path) -> None:
    def second(_: Progress) -> None:
        with pytest.raises(UserError, match=r"c: in use by process \d+"):
            cluster(VECTORS, 3, use_ray=False, output=tmp_path / "c")
        with pytest.raises(UserError, match="in use by"):
            cluster(VECTORS, 6, use_ray=False, output=tmp_path / "c", resume=True)

    cluster(VECTORS, 6, use_ray=False, output=tmp_path / "c", on_iteration=second)
    assert not (tmp_path / "c" / ".clray.lock").exists()
