"""What a checkpoint gathers arrives at rank 0 alone."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from clray.training.workers import rows as module
from clray.training.workers.port import gather_on_first

NUM_BYTES = 32 * 2**20


def memory(name: str) -> int:
    """Bytes of this process, `VmRSS` now or `VmHWM` at most."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return 1024 * int(found[1])


def worker(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    bank = torch.full((NUM_BYTES,), rank, dtype=torch.uint8)
    gather_on_first(bank[:1], world_size)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts anew
    before = memory("VmRSS")
    parts = gather_on_first({"bank": bank}, world_size)
    grown = memory("VmHWM") - before
    firsts = None if parts is None else [int(part["bank"][0]) for part in parts]
    torch.save((firsts, grown), f"{folder}/{rank}.pt")
    holds_rows_in_order(rank, world_size)
    dist.barrier()
    dist.destroy_process_group()


def holds_rows_in_order(rank: int, world_size: int) -> None:
    """Of shards of other sizes, one of them empty, in chunks of two rows."""
    module.CHUNK_BYTES = 2 * 4 * 3
    order = np.random.default_rng(0).permutation(17)
    shards = [np.sort(each) for each in np.split(order, [5, 5, 12])]
    table = np.arange(17 * 3, dtype=np.float32).reshape(17, 3)
    found = module.rows_on_first(table[shards[rank]], shards, rank)
    assert world_size == len(shards)
    if rank == 0:
        np.testing.assert_array_equal(found, table)
    else:
        assert found is None


@pytest.mark.slow
def test_only_rank_0_receives_the_banks_of_all(tmp_path: Path) -> None:
    mp.spawn(worker, (4, str(tmp_path)), nprocs=4)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(4)]
    assert [firsts for firsts, _ in found] == [[0, 1, 2, 3], None, None, None]
    # Its own part as bytes, and a copy or two of these; not the parts of four.
    assert max(grown for _, grown in found[1:]) < 3.5 * NUM_BYTES


def test_one_worker_has_what_it_holds() -> None:
    assert gather_on_first("x", 1) == ["x"]
