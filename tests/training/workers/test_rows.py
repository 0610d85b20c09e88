"""Rows that several workers hold come together on the first, in the order of the data set."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from clray.training.workers import rows as module


def worker(rank: int, world_size: int, folder: str) -> None:
    """Of shards of other sizes, one of them empty, in chunks of two rows."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
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
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_rows_of_shards_of_other_sizes_come_in_order(tmp_path: Path) -> None:
    mp.spawn(worker, (4, str(tmp_path)), nprocs=4)
