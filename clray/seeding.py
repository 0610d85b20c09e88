"""Independent random seeds from (run seed, component, epoch, rank).

Nothing here holds state: a resumed run derives the same seeds as an uninterrupted one, so no generator has to be
restored in the middle of its stream.
"""

import os
import zlib

import numpy as np

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def forbid_chance() -> None:
    """Let torch, in this process, refuse operations whose result differs from time to time."""
    import torch

    # cuBLAS reads it when its first product is computed; without it, torch refuses every product on a GPU.
    os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)


def derive_seed(seed: int, component: str, *, epoch: int = 0, rank: int = 0) -> int:
    """A 63-bit seed for one component of one epoch on one worker.

    The four parts are mixed by numpy's `SeedSequence`, so neighbouring epochs, ranks and run seeds give
    statistically independent streams. `component` enters by its CRC-32, which, unlike `hash`, is the same in every
    process.
    """
    entropy = (seed, zlib.crc32(component.encode()), epoch, rank)
    return int(np.random.SeedSequence(entropy).generate_state(1, dtype=np.uint64)[0] >> np.uint64(1))
