"""Hundreds of damaged checkpoints: each is named, used, or left for the one before it; none ends in a traceback."""

import io
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clray.config import Config, stored_config
from clray.data.load import Dataset, load_dataset
from clray.errors import UserError
from clray.kmeans.refresh import LocalKMeans
from clray.training.checkpoint import read_checkpoint
from clray.training.checkpoint_form import ADDED_LATER, Checkpoint
from clray.training.checkpoint_parts import CHECKPOINT_FILE
from clray.training.export import load_model
from clray.training.trainer import run
from clray.training.workers.process import LocalSession

CPU = torch.device("cpu")
NUM_CASES = 320
WRONG: tuple[Any, ...] = (
    None, -1, 7, 10**12, 0.5, True, "text", [], [1, "x"], {}, {"a": 1}, torch.zeros(0), torch.zeros(3, 2),
    torch.full((1, 5), 9), torch.zeros(2, dtype=torch.complex64), torch.eye(3).to_sparse(), float("nan"),
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Dataset, bytes]:
    """A short run with k-means clusters, a bank and a queue, and its last checkpoint."""
    from tests.conftest import TINY

    tree = {**TINY, "objective": {"negatives": "queue", "queue_size": 64}, "train": {**TINY["train"], "num_epochs": 2}}
    from clray.config import parse_config

    config = parse_config(tree)
    data, folder = load_dataset(config.data), tmp_path_factory.mktemp("run")
    run(config, data, LocalSession(folder, LocalKMeans(config.kmeans), lambda _: None, CPU))
    return config, data, (folder / CHECKPOINT_FILE).read_bytes()


def damaged_bytes(whole: bytes, generator: np.random.Generator) -> bytes:
    content = bytearray(whole)
    start, kind = int(generator.integers(len(content))), generator.integers(4)
    if kind == 0:
        del content[start:]
    elif kind == 1:
        content[start : start + 20] = generator.bytes(20)
    elif kind == 2:
        content[start] ^= 1 << int(generator.integers(8))
    else:
        content[start : start + 4096] = bytes(4096)
    return bytes(content)


def places(tree: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where in a checkpoint something can be missing or wrong."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        if path[:1] != ("config",):
            yield from places(value, (*path, key))


def wrongly_filled(checkpoint: Any, generator: np.random.Generator) -> bytes:
    tree = deepcopy(checkpoint)
    every = list(places(tree))
    # As often a key of the first level as one below.
    chosen = [place for place in every if len(place) == 1] if generator.random() < 0.5 else every
    *above, last = chosen[int(generator.integers(len(chosen)))]
    holder = tree
    for key in above:
        holder = holder[key]
    if generator.random() < 0.2:
        del holder[last]
    elif isinstance(holder[last], torch.Tensor) and generator.random() < 0.5:
        value = holder[last]
        holder[last] = [value[None], value.flatten()[:-1], value.double().cfloat(), value * 0 - 5][
            int(generator.integers(4))
        ]
    else:
        holder[last] = WRONG[int(generator.integers(len(WRONG)))]
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


def use(path: Path) -> None:
    checkpoint = read_checkpoint(path)
    config = stored_config(checkpoint["config"], {}, path)
    load_model(checkpoint, config)


def test_damaged_checkpoints_are_named_and_the_one_before_is_used(
    trained: tuple[Config, Dataset, bytes], tmp_path: Path
) -> None:
    config, data, whole = trained
    checkpoint = torch.load(io.BytesIO(whole), weights_only=True)
    generator, messages = np.random.default_rng(0), []
    (tmp_path / "checkpoint.1.pt").write_bytes(whole)
    path = tmp_path / CHECKPOINT_FILE
    for case in range(NUM_CASES):
        path.write_bytes(damaged_bytes(whole, generator) if case % 2 else wrongly_filled(checkpoint, generator))
        try:
            use(path)
        except UserError as error:
            messages.append(str(error))
        if case % 4 < 2:
            # The run is over: it takes the state over, from this checkpoint or the one before, and ends.
            run(config, data, LocalSession(tmp_path, LocalKMeans(config.kmeans), lambda _: None, CPU))
    assert len(messages) > NUM_CASES / 3
    assert all("checkpoint" in each and len(each) < 1000 for each in messages)


@pytest.mark.parametrize("key", sorted(Checkpoint.__required_keys__))
def test_each_key_of_a_checkpoint_is_checked_when_it_is_read(
    key: str, trained: tuple[Config, Dataset, bytes], tmp_path: Path
) -> None:
    checkpoint = torch.load(io.BytesIO(trained[2]), weights_only=True)
    assert set(checkpoint) == Checkpoint.__required_keys__
    without = {name: value for name, value in checkpoint.items() if name != key}
    cases = [(without, "is missing|not a clray checkpoint"), ({**checkpoint, key: 1j}, "holds complex")]
    if key in ADDED_LATER:
        torch.save(without, tmp_path / CHECKPOINT_FILE)
        assert read_checkpoint(tmp_path)[key] is ADDED_LATER[key]
        del cases[0]
    for damaged, said in cases:
        torch.save(damaged, tmp_path / CHECKPOINT_FILE)
        with pytest.raises(UserError, match=said):
            read_checkpoint(tmp_path)


def test_where_no_checkpoint_can_be_used_each_is_named(trained: tuple[Config, Dataset, bytes], tmp_path: Path) -> None:
    config, data, whole = trained
    (tmp_path / "checkpoint.1.pt").write_bytes(whole[:500])
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"")
    with pytest.raises(UserError, match=r"(?s)checkpoint\.pt.*checkpoint\.1\.pt.*start a new run"):
        run(config, data, LocalSession(tmp_path, None, lambda _: None, CPU))
