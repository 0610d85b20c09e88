"""Which kind of shard searches, with stand-ins for GPUs and for flash-kmeans."""

import sys
from types import ModuleType
from typing import Any

import faiss
import numpy as np
import pytest
import torch

from clray.config.sections import KMeansConfig, TrainConfig
from clray.errors import UserError
from clray.kmeans.engine import cluster
from clray.kmeans.memory import GPU_ROWS, process_bytes
from clray.kmeans.options import make_options
from clray.kmeans.shards import choice, flash
from clray.kmeans.shards.choice import ShardMaker, maker_here, maker_of_actor, torch_shard
from clray.kmeans.shards.faiss_gpu import TEMP_BYTES
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.kept import KeptShards
from clray.kmeans.shards.torch_kernels import nearest_by_tiles, upload
from clray.kmeans.shards.torch_shard import TorchShard
from clray.kmeans.vectors.source import open_vectors
from clray.kmeans.vectors.tensors import TensorRows
from clray.training.arithmetic import arithmetic_of_run

VECTORS = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32)
CENTROIDS = VECTORS[:40].copy()


class Gpu:
    """A GPU of FAISS that records what is done to it."""

    def __init__(self) -> None:
        self.resources: list[Any] = []
        self.uploads: list[int] = []
        self.searches: list[int] = []


@pytest.fixture
def faiss_gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu()

    class Resources:
        def __init__(self) -> None:
            gpu.resources.append(self)
            self.temp_bytes = 0

        def setTempMemory(self, size: int) -> None:
            self.temp_bytes = size

    class Index:
        def __init__(self, resources: Resources, dim: int) -> None:
            assert resources in gpu.resources
            self.index = faiss.IndexFlatL2(dim)

        def add(self, centroids: np.ndarray) -> None:
            gpu.uploads.append(len(centroids))
            self.index.add(centroids)

        def search(self, chunk: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            gpu.searches.append(len(chunk))
            return self.index.search(chunk, k)

    monkeypatch.setattr(faiss, "StandardGpuResources", Resources)
    monkeypatch.setattr(faiss, "GpuIndexFlatL2", Index)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    return gpu


def test_faiss_on_a_gpu_has_one_set_of_resources_and_takes_centroids_once(faiss_gpu: Gpu) -> None:
    vectors = np.random.default_rng(1).normal(size=(2 * GPU_ROWS + 5, 4)).astype(np.float32)
    centroids = vectors[:6].copy()
    maker = maker_of_actor("faiss", gpus=0.5, num_threads=1)
    for part in (vectors, vectors[:10]):
        (found,), (expected,) = (s.accumulate([centroids]) for s in (maker.make(part), FaissShard(part)))
        np.testing.assert_array_equal(found.counts, expected.counts)
        np.testing.assert_allclose(found.sums, expected.sums)
    assert [each.temp_bytes for each in faiss_gpu.resources] == [TEMP_BYTES]
    assert faiss_gpu.uploads == [6, 6]
    assert faiss_gpu.searches == [GPU_ROWS, GPU_ROWS, 5, 10]


@pytest.mark.parametrize("backend", ["auto", "faiss", "torch", "flash-kmeans"])
def test_a_gpu_that_nothing_sees_is_an_error_not_a_search_on_the_cpu(backend: Any) -> None:
    kept = KeptShards(KMeansConfig(backend=backend, gpus_per_shard=0.5), "exact", None)
    with pytest.raises(UserError, match=r"kmeans.gpus_per_shard=0.5: .* sees (no|a) GPU .* kmeans.gpus_per_shard=0$"):
        kept.open("a", VECTORS, [3])


def test_without_a_gpu_auto_is_faiss_and_torch_is_torch_on_the_cpu() -> None:
    for make in (maker_here, lambda backend: maker_of_actor(backend, gpus=0, num_threads=1)):
        assert isinstance(make("auto").make(VECTORS), FaissShard)
        assert isinstance(make("faiss").make(VECTORS), FaissShard)
        shard = make("torch").make(VECTORS)
        assert isinstance(shard, TorchShard)
        assert shard.vectors.device.type == "cpu"


def test_what_does_not_fit_on_the_gpu_is_searched_by_faiss(monkeypatch: pytest.MonkeyPatch, faiss_gpu: Gpu) -> None:
    """A GPU with room for one slice, and then for none; tensors stay on the CPU here."""
    monkeypatch.setattr(choice, "_gpu", lambda: torch.device("cuda"))
    free = [choice.SPARE_BYTES + VECTORS.nbytes]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free[0], 80 * 2**30))
    to = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *args: self if args == (torch.device("cuda"),) else to(self, *args)
    )
    kept = KeptShards(KMeansConfig(gpus_per_shard=1), "exact", None)
    first = kept.open("a", VECTORS, [3])
    assert isinstance(first, TorchShard)
    assert kept.open("a", VECTORS, [3]) is first
    free[0] -= 1
    other = kept.open("b", VECTORS, [3])
    assert isinstance(other, FaissShard)
    assert not kept.kept, "the first was let go to make room"
    other.assign([CENTROIDS])
    assert faiss_gpu.searches == [2000]
    free[0] += 1
    kept.last("a", VECTORS, [3])
    assert not kept.kept, "the last call of a clustering gives the copy up"
    approximate = KeptShards(KMeansConfig(gpus_per_shard=1), "hnsw", None)
    assert isinstance(approximate.open("a", VECTORS, [3]), FaissShard)


def test_half_a_gpu_takes_half_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * choice.SPARE_BYTES + VECTORS.nbytes, 0))
    sizes = [ShardMaker("auto", device=torch.device("cuda"), share=share).fits(VECTORS) for share in (0.5, 1.0)]
    assert sizes == [False, True]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_whole_clustering_is_that_of_faiss_with_each_backend(dtype: type, tmp_path) -> None:
    np.save(tmp_path / "v.npy", (VECTORS + 3).astype(dtype))
    options = {"use_ray": False, "num_iterations": 6, "init": "kmeans++", "seed": 2}
    theirs, ours = (cluster(tmp_path / "v.npy", [9, 30], backend=each, **options) for each in ("faiss", "torch"))
    for one, other in zip(ours.clusterings, theirs.clusterings, strict=True):
        assert one.inertia == pytest.approx(other.inertia, rel=1e-6)
        assert np.mean(one.ids == other.ids) > 0.999


def test_approximate_search_belongs_to_faiss() -> None:
    with pytest.raises(UserError, match="backend=torch has no approximate search; assign_method=ivf belongs to"):
        make_options(backend="torch", assign_method="ivf")


def install_flash(monkeypatch: pytest.MonkeyPatch, kernel: Any) -> None:
    module = ModuleType(flash.MODULE)
    module.euclid_assign_triton = kernel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_kmeans", ModuleType("flash_kmeans"))
    monkeypatch.setitem(sys.modules, flash.MODULE, module)


def right(x: torch.Tensor, centroids: torch.Tensor, x_sq: torch.Tensor, c_sq: torch.Tensor) -> torch.Tensor:
    """As flash-kmeans 0.3.1 is called: [1, N, dim], [1, K, dim], [1, N] and [1, K] to int32 [1, N]."""
    assert x_sq.shape == x.shape[:2]
    return (x_sq[..., None] - 2 * x @ centroids.mT + c_sq[:, None]).argmin(-1).int()


def wrong(x: torch.Tensor, centroids: torch.Tensor, x_sq: torch.Tensor, c_sq: torch.Tensor) -> torch.Tensor:
    return right(x, centroids.half().float() * 1.01, x_sq, c_sq)


def broken(*_: Any, **__: Any) -> torch.Tensor:
    raise RuntimeError("no driver")


def test_flash_kmeans_is_used_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    install_flash(monkeypatch, right)
    vectors, centroids = torch.from_numpy(VECTORS), upload(CENTROIDS, torch.device("cpu"))
    for seconds, is_used in (({nearest_by_tiles: 2.0}, True), ({nearest_by_tiles: 0.5}, False)):
        monkeypatch.setattr(flash, "_seconds", lambda kernel, *_, seconds=seconds: seconds.get(kernel, 1.0))
        chosen = flash.faster_kernel(vectors, centroids)
        assert (chosen is not nearest_by_tiles) is is_used
        torch.testing.assert_close(chosen(vectors, centroids), nearest_by_tiles(vectors, centroids))


def test_a_deterministic_run_lets_no_time_choose_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    install_flash(monkeypatch, right)
    monkeypatch.setattr(flash, "_seconds", lambda kernel, *_: 2.0 if kernel is nearest_by_tiles else 1.0)
    device = torch.device("cpu")
    with arithmetic_of_run(TrainConfig(deterministic=True), device):
        assert flash.faster_kernel(torch.from_numpy(VECTORS), upload(CENTROIDS, device)) is nearest_by_tiles


@pytest.mark.parametrize("kernel", [wrong, broken])
def test_flash_kmeans_is_not_used_where_it_is_wrong_or_fails(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install_flash(monkeypatch, kernel)
    vectors, centroids = torch.from_numpy(VECTORS), upload(CENTROIDS, torch.device("cpu"))
    assert flash.faster_kernel(vectors, centroids) is nearest_by_tiles
    with pytest.raises(UserError, match=r"kmeans\.backend=flash-kmeans: its kernel fails or does not"):
        cluster(VECTORS, 5, use_ray=False, backend="flash-kmeans")


def test_flash_kmeans_clusters_as_faiss_does(monkeypatch: pytest.MonkeyPatch) -> None:
    install_flash(monkeypatch, right)
    ours, theirs = (cluster(VECTORS, 12, use_ray=False, backend=each) for each in ("flash-kmeans", "faiss"))
    np.testing.assert_array_equal(ours.ids, theirs.ids)
    assert ours.inertia == pytest.approx(theirs.inertia, rel=1e-6)


def test_flash_kmeans_that_is_asked_for_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_kmeans", None)
    shard = torch_shard(TensorRows(torch.from_numpy(VECTORS)), "flash-kmeans")
    with pytest.raises(UserError, match=r"kmeans\.backend=flash-kmeans: the package is not installed"):
        shard.assign([CENTROIDS])


@pytest.mark.parametrize("asked", [1, 16_000])
def test_memory_is_planned_for_the_clustering_whatever_call_comes_first(tmp_path, asked: int) -> None:
    """A restarted actor hears first of a candidate of k-means||, or of many, and keeps the slice for K clusters."""
    np.save(tmp_path / "v.npy", np.zeros((2000, 64), np.float32))
    vectors = open_vectors(tmp_path / "v.npy").slice(0, 2000)
    memory = process_bytes() + 60 * 10**6
    kept, plain = (KeptShards(KMeansConfig(), "exact", memory, num_clusters=each) for each in ([8000], ()))
    assert kept._plan(vectors, [asked]) == plain._plan(vectors, [8000]) != plain._plan(vectors, [1])


def test_a_slice_of_files_is_read_once_for_any_origin(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "v.npy", VECTORS.astype(np.float16))
    (part,) = open_vectors(tmp_path / "v.npy").split(1)
    kept = KeptShards(KMeansConfig(), "exact", None)
    reads: list[int] = []
    read = type(part).stored_blocks
    monkeypatch.setattr(type(part), "stored_blocks", lambda *args: reads.append(1) or read(*args))
    for origin in (None, np.ones(8, np.float32), np.zeros(8, np.float32)):
        shard = kept.open("", part, [40]).about(origin)
        ((ids, _),) = shard.assign([CENTROIDS if origin is None else CENTROIDS - origin])
        np.testing.assert_array_equal(ids, FaissShard(VECTORS.astype(np.float16)).assign([CENTROIDS])[0][0])
    assert reads == [1]
    assert {each.dtype for each in shard._resident} == {np.dtype(np.float16)}
