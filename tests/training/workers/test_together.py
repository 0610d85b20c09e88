"""Four gloo workers write a checkpoint side by side, and all go on from the same one."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed import distributed_c10d

from clray.data.load import load_dataset
from clray.errors import UserError
from clray.training.checkpoint import newest_checkpoint, read_checkpoint, write_checkpoint
from clray.training.checkpoint_form import Snapshot
from clray.training.checkpoint_parts import (
    CHECKPOINT_FILE,
    MANIFEST_FILE,
    Place,
    Rows,
    committed,
    part_file,
    read_parts,
    remove_unfinished,
    write_manifest,
)
from clray.training.storage import Storage
from clray.training.trainer import run
from clray.training.workers import together
from clray.training.workers.process import LocalSession
from clray.training.workers.together import restore_together, write_together
from tests.training.test_checkpoint import CHECKPOINT

WORLD, NUM_ROWS, DIM = 4, 10_001, 64
BANK = torch.randn(NUM_ROWS, DIM, generator=torch.Generator().manual_seed(0)).half()
SEEN = torch.arange(NUM_ROWS) % 7 != 0


def rows_of(rank: int, world_size: int) -> np.ndarray:
    return np.arange(rank, NUM_ROWS, world_size)


def snapshot(rank: int, epoch: int, *, with_bank: bool = True) -> Snapshot:
    rows = torch.from_numpy(rows_of(rank, WORLD))
    losses = torch.tensor([rank, 1.0 + rank])
    meter = {**CHECKPOINT["meter"], "losses": losses, "positives": losses}
    bank = {"vectors": BANK[rows] * epoch, "seen": SEEN[rows]} if with_bank else None
    shared: Any = {key: value for key, value in CHECKPOINT.items() if key not in ("meter", "bank")}
    shared |= {"epoch": epoch, "cluster_ids": torch.zeros(1, NUM_ROWS, dtype=torch.int32)}
    return Snapshot(shared if rank == 0 else None, {"rows": rows, "meter": meter, "bank": bank})


def written(folder: Path, *epochs: int, with_bank: bool = True) -> Place:
    """The folder of a group's checkpoints, as four workers leave it."""
    place = Place.here(folder / "workers")
    for epoch in epochs:
        files = {}
        for rank in range(WORLD):
            own, _ = together._written(
                place.inside(f"checkpoint_{epoch}"), snapshot(rank, epoch, with_bank=with_bank), rank, WORLD
            )
            files |= own
        write_manifest(place.inside(f"checkpoint_{epoch}"), files)
    return place


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD)
    writers, place = dist.new_group(backend="gloo"), Place.here(Path(folder) / "workers")
    sent, as_tensor = [], distributed_c10d._object_to_tensor

    def counted(value: Any, *more: Any) -> Any:
        found = as_tensor(value, *more)
        sent.append(int(found[1]))
        return found

    distributed_c10d._object_to_tensor = counted
    for epoch in (1, 2):
        write_together(place.inside(f"checkpoint_{epoch}"), snapshot(rank, epoch), writers)
    problem = None
    try:
        write_together(place.inside("checkpoint_3") if rank != 2 else Place.here(Path(__file__)), snapshot(rank, 3),
                       writers)  # fmt: skip
    except UserError as error:
        problem = str(error)
    dist.barrier()
    if rank == 0:
        path = Path(folder) / "workers" / "checkpoint_2" / part_file(1)
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    dist.barrier()
    loaded: list[Any] = []
    restore_together(committed(place), loaded.append, rows_of(rank, WORLD), rank, WORLD)
    last = loaded[-1]
    torch.save((sent, problem, last["epoch"], last["meter"], last["bank"]), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_workers_write_side_by_side_and_go_on_from_the_checkpoint_that_all_can_read(tmp_path: Path) -> None:
    mp.spawn(worker, (str(tmp_path),), nprocs=WORLD)
    for rank in range(WORLD):
        sent, problem, epoch, meter, bank = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        # Names, sizes, checksums and problems pass between the workers; a bank has 320 kB a worker.
        assert 0 < sum(sent) < 5_000
        assert (problem is not None) == (rank in (0, 2)), problem
        assert problem is None or "worker 2" in problem
        # One worker's part of the second is damaged, so all take the first.
        assert epoch == 1
        assert torch.equal(bank["vectors"], BANK[rank::WORLD])
        assert torch.equal(bank["seen"], SEEN[rank::WORLD])
        assert meter["losses"].tolist() == [rank, 1.0 + rank]
    names = [Path(each.path).name for each in committed(Place.here(tmp_path / "workers"))]
    assert names == ["checkpoint_2", "checkpoint_1"]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
def test_another_number_of_workers_finds_its_rows(tmp_path: Path, world_size: int) -> None:
    place = written(tmp_path, 1).inside("checkpoint_1")
    for rank in range(world_size):
        found = read_parts(place, rows_of(rank, world_size), rank)
        assert torch.equal(found["bank"]["vectors"], BANK[rank::world_size])
        assert torch.equal(found["bank"]["seen"], SEEN[rank::world_size])
        own = [float(rank), 1.0 + rank]
        assert found["meter"]["losses"].tolist() == (own if world_size == WORLD else [1.5, 2.5])
        assert "num_parts" not in found


def test_a_reader_of_the_model_reads_no_bank_and_a_trunk_reads_all(tmp_path: Path) -> None:
    written(tmp_path, 1)
    assert read_checkpoint(tmp_path)["bank"] is None
    assert read_checkpoint(tmp_path)["num_parts"] == WORLD
    assert torch.equal(read_checkpoint(tmp_path, "all")["bank"]["vectors"], BANK)


def test_a_run_without_a_bank_has_parts_too(tmp_path: Path) -> None:
    written(tmp_path, 1, with_bank=False)
    found = read_checkpoint(tmp_path, rows_of(1, 2))
    assert found["bank"] is None
    assert found["meter"]["losses"].tolist() == [1.5, 2.5]


def test_a_group_s_checkpoint_from_before_parts_is_read_and_those_after_go_first(tmp_path: Path) -> None:
    whole = {**CHECKPOINT, "epoch": 1, "cluster_ids": torch.zeros(1, NUM_ROWS, dtype=torch.int32)}
    whole["bank"] = {"vectors": BANK, "seen": SEEN}
    place = Place.here(tmp_path / "workers" / "checkpoint_1")
    place.write(CHECKPOINT_FILE, lambda file: torch.save(whole, file))
    found = newest_checkpoint(tmp_path, rows=rows_of(0, 2))
    assert found is not None
    assert torch.equal(found["bank"]["vectors"], BANK)
    written(tmp_path, 2)
    assert read_checkpoint(tmp_path)["epoch"] == 2


def test_a_part_without_the_others_is_refused_by_name(tiny_config: Callable[..., Any], tmp_path: Path) -> None:
    """As where the output folder holds a copy of what the workers share."""
    written(tmp_path, 1)
    (tmp_path / "workers" / "checkpoint_1" / CHECKPOINT_FILE).rename(tmp_path / CHECKPOINT_FILE)
    config = tiny_config()
    with pytest.raises(UserError, match="holds what 4 workers share, and not what each held alone"):
        run(config, load_dataset(config.data), LocalSession(tmp_path, None, lambda _: None, torch.device("cpu")))


def test_one_worker_goes_on_from_a_group_s_checkpoint_in_the_storage(tmp_path: Path) -> None:
    """The folder, which is still there, holds of it what the workers shared; what one worker has written is newer."""
    place, here = written(tmp_path / "kept" / "r", 1).inside("checkpoint_1"), tmp_path / "here" / "r"
    here.mkdir(parents=True)
    place.fetch(CHECKPOINT_FILE, here / CHECKPOINT_FILE)
    session = LocalSession(
        here, None, lambda _: None, torch.device("cpu"), storage=Storage(str(tmp_path / "kept"), "r")
    )
    loaded: list[Any] = []
    assert session.restore(loaded.append, rows_of(0, 1))
    assert "num_parts" not in loaded[0]
    assert torch.equal(loaded[0]["bank"]["vectors"], BANK)
    shutil.rmtree(here)
    write_checkpoint(here, {**CHECKPOINT, "epoch": 7})
    assert session.restore(loaded.append, rows_of(0, 1))
    assert loaded[1]["epoch"] == 7


def damage(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "changed":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


@pytest.mark.parametrize("kind", ["missing", "cut", "changed"])
@pytest.mark.parametrize("name", [part_file(0), part_file(3), CHECKPOINT_FILE])
@pytest.mark.parametrize("rows", ["all", np.arange(0, NUM_ROWS, 2)], ids=["all", "half"])
def test_a_checkpoint_with_a_damaged_file_is_left_for_the_one_before(
    tmp_path: Path, name: str, kind: str, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path, 1, 2)
    damage(tmp_path / "workers" / "checkpoint_2", name, kind)
    with caplog.at_level(logging.WARNING):
        found = newest_checkpoint(tmp_path, rows=rows)
    assert found is not None
    assert found["epoch"] == 1
    (said,) = caplog.messages
    assert name in said
    assert "resuming from" in said
    damage(tmp_path / "workers" / "checkpoint_1", name, kind)
    with pytest.raises(UserError, match="no checkpoint of the run can be used"):
        newest_checkpoint(tmp_path, rows=rows)


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    place = written(tmp_path, 1).inside("checkpoint_1")
    damage(Path(place.path), MANIFEST_FILE, "cut")
    with pytest.raises(UserError, match=r"checkpoint_1/manifest\.json: a damaged manifest"):
        read_parts(place, "all")


def test_what_no_manifest_commits_is_no_checkpoint_and_is_removed(tmp_path: Path) -> None:
    place = written(tmp_path, 1, 2)
    (tmp_path / "workers" / "checkpoint_2" / MANIFEST_FILE).unlink()
    assert read_checkpoint(tmp_path)["epoch"] == 1
    with pytest.raises(UserError, match=r"manifest\.json is missing"):
        read_parts(place.inside("checkpoint_2"), "all")
    remove_unfinished(place.below())
    assert [Path(each.path).name for each in place.below()] == ["checkpoint_1"]


def test_workers_that_do_not_see_the_same_folder_commit_nothing(tmp_path: Path) -> None:
    place = Place.here(tmp_path / "checkpoint_1")
    files, _ = together._written(place, snapshot(0, 1), 0, 2)
    elsewhere, _ = together._written(Place.here(tmp_path / "other"), snapshot(1, 1), 1, 2)
    with pytest.raises(UserError, match=f"{part_file(1)} is missing"):
        write_manifest(place, files | elsewhere)
    assert not (tmp_path / "checkpoint_1" / MANIFEST_FILE).exists()
