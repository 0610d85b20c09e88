"""Which kind of shard searches vectors: torch where they lie on a GPU or fit there, else FAISS."""

import sys
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from clray.config.sections.clusters import KMeansBackend
from clray.errors import UserError
from clray.kmeans.memory import BlockPlan
from clray.kmeans.options import AssignMethod
from clray.kmeans.shards.faiss_gpu import GpuSearch, num_gpus
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.port import Shard
from clray.kmeans.vectors.source import ArraySlice, VectorSlice
from clray.seeding import forbid_chance

if TYPE_CHECKING:
    import torch

    from clray.kmeans.shards.torch_shard import TorchShard
    from clray.kmeans.vectors.tensors import TensorRows

SPARE_BYTES = 2**30
"""Of a GPU's free memory, for tiles, blocks and sums."""


class ShardMaker:
    """Makes the shards of a process; FAISS's resources on a GPU are those of the process, not of a shard."""

    def __init__(
        self,
        backend: KMeansBackend,
        *,
        device: "torch.device | None" = None,
        faiss_on_gpu: bool = False,
        share: float = 1.0,
        assign_method: AssignMethod = "exact",
        num_threads: int | None = None,
    ) -> None:
        """Say where.

        Args:
            device: where torch searches; None leaves all to FAISS.
            faiss_on_gpu: whether FAISS searches on a GPU what torch does not.
            share: part of the GPU's free memory that vectors may take.
            num_threads: of FAISS; None leaves its settings alone.
        """
        self.backend, self.device, self.share = backend, device, share
        self.faiss_on_gpu, self.assign_method, self.num_threads = faiss_on_gpu, assign_method, num_threads

    def make(self, vectors: np.ndarray | VectorSlice, *, plan: BlockPlan | None = None) -> Shard:
        """A shard of vectors in the host's memory or in files, of which `plan` says how much FAISS reads at a time."""
        fits = plan is None or plan.is_resident or (self.device is not None and self.device.type == "cuda")
        if self.device is not None and self.assign_method == "exact" and fits and self.fits(vectors):
            from clray.kmeans.vectors.tensors import tensor_of

            return torch_shard(tensor_of(vectors, self.device), self.backend)
        return FaissShard(
            vectors, plan=plan, assign_method=self.assign_method, num_threads=self.num_threads, gpu=self._gpu
        )

    def fits(self, vectors: np.ndarray | VectorSlice) -> bool:
        """Whether the GPU has room for a copy of the vectors; without one they stay where they are."""
        if self.device is None or self.device.type != "cuda":
            return True
        import torch

        given = ArraySlice(vectors) if isinstance(vectors, np.ndarray) else vectors
        free, _ = torch.cuda.mem_get_info(self.device)
        return len(given) * given.dim * given.itemsize + SPARE_BYTES <= free * self.share

    @cached_property
    def _gpu(self) -> GpuSearch | None:
        return GpuSearch() if self.faiss_on_gpu else None


def maker_of_actor(
    backend: KMeansBackend,
    *,
    gpus: float,
    num_threads: int,
    assign_method: AssignMethod = "exact",
    deterministic: bool = False,
) -> ShardMaker:
    """That of a shard actor which was given so many GPUs, or a part of one.

    Args:
        deterministic: torch takes no operation that depends on chance in this process, and FAISS, whose sums on a GPU
            do, searches on the CPU.

    Raises:
        UserError: it was given a GPU, and what is to use it sees none.
    """
    wants_torch = backend in ("torch", "flash-kmeans")
    if deterministic and (wants_torch or gpus > 0):
        forbid_chance()
    if gpus == 0:
        device = _device("cpu") if wants_torch else None
        return ShardMaker(backend, device=device, assign_method=assign_method, num_threads=num_threads)
    device, faiss_on_gpu = None if backend == "faiss" else _gpu(), num_gpus() > 0
    if device is None and (wants_torch or not faiss_on_gpu):
        raise _no_gpu(backend, gpus)
    return ShardMaker(
        backend,
        device=device,
        faiss_on_gpu=faiss_on_gpu and not deterministic,
        share=min(gpus, 1.0),
        assign_method=assign_method,
        num_threads=num_threads,
    )


def require_gpu(backend: KMeansBackend, gpus: float) -> None:
    """Raise UserError where a shard asks for a GPU, and what is to use it sees none in this process."""
    if gpus > 0:
        maker_of_actor(backend, gpus=gpus, num_threads=1)


def _no_gpu(backend: KMeansBackend, gpus: float) -> UserError:
    who = {"faiss": "FAISS sees no", "auto": "neither torch nor FAISS sees a"}.get(backend, "torch sees no")
    return UserError(
        f"kmeans.gpus_per_shard={gpus:g}: {who} GPU in this process. Check the driver, and that the packages are built "
        "for CUDA; or set kmeans.gpus_per_shard=0"
    )


def maker_here(
    backend: KMeansBackend, *, gpus: float = 0.0, assign_method: AssignMethod = "exact"
) -> ShardMaker:  # fmt: skip
    """That of a process that clusters without Ray: on its first GPU where it has one, with all threads else.

    Args:
        gpus: that are asked for; with 0 it may be any.

    Raises:
        UserError: one is asked for, and there is none.
    """
    require_gpu(backend, gpus)
    wants_torch = backend in ("torch", "flash-kmeans")
    if backend == "faiss":
        device = None
    else:
        # Importing torch takes seconds, which a machine without a GPU need not wait for.
        may_have_one = wants_torch or "torch" in sys.modules or num_gpus() > 0
        device = (_gpu() if may_have_one else None) or (_device("cpu") if wants_torch else None)
    on_gpu = device is not None and device.type == "cuda" and num_gpus() > 0
    return ShardMaker(backend, device=device, faiss_on_gpu=on_gpu, assign_method=assign_method)


def torch_shard(rows: "TensorRows", backend: KMeansBackend) -> "TorchShard":
    """A shard of vectors that lie on a device already."""
    from clray.kmeans.shards.flash import faster_kernel, flash_kernel
    from clray.kmeans.shards.torch_shard import TorchShard, by_tiles

    if backend == "flash-kmeans":
        return TorchShard(rows, flash_kernel)
    return TorchShard(rows, faster_kernel if backend == "auto" and rows.device.type == "cuda" else by_tiles)


def _gpu() -> "torch.device | None":
    import torch

    return torch.device("cuda") if torch.cuda.is_available() else None


def _device(name: str) -> "torch.device":
    import torch

    return torch.device(name)
