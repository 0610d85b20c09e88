"""How much of a slice a shard reads at a time, so that its process stays within a bound."""

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clray.errors import UserError

MAX_BLOCK_BYTES = 2**23
"""Larger reads gain nothing, as the next one is under way while the last one is searched."""


@dataclass(frozen=True)
class BlockPlan:
    """Attributes: whether the slice is kept in memory, in its own type; rows per read where it is not."""

    is_resident: bool
    block_rows: int


GPU_ROWS = 65_536
"""A GPU that is given fewer vectors at a time waits for the next more than it searches."""


def work_rows(dim: int, *, on_gpu: bool = False) -> int:
    """Vectors searched at a time: their float64 copy takes 8 MiB (8,192 vectors of 128 dimensions)."""
    return GPU_ROWS if on_gpu else max(1024, 2**20 // dim)


def plan_blocks(
    num_rows: int,
    dim: int,
    num_clusters: Sequence[int],
    *,
    memory_bytes: int,
    process_bytes: int,
    itemsize: int = 4,
    on_gpu: bool = False,
) -> BlockPlan:
    """Divide a bound on a shard's memory.

    Args:
        num_clusters: K of each set of centroids that is searched in one pass; several starts have the same K.
        memory_bytes: the bound on the process's own memory.
        process_bytes: what the process holds before it has read a vector.
        itemsize: bytes of a coordinate as it is stored, and kept.
        on_gpu: whether FAISS searches on a GPU, which takes more vectors at a time.

    Raises:
        UserError: too small a bound, with the figure that is needed.
    """
    # Per centroid coordinate: float32 centroid, float64 sum, float64 product of a chunk, float64 sum on its way out.
    centroid_bytes = sum(28 * k * dim for k in num_clusters)
    # Per coordinate of a chunk: the float64 copy and the source's own; per row: weights, distances, ids of two kinds.
    # On top what the allocator keeps of blocks that are freed, as measured.
    # A tile of the search in float64 and its rows come last.
    work_bytes = min(work_rows(dim, on_gpu=on_gpu), num_rows) * (20 * dim + 48) + 2**24 + 2**23
    id_bytes = 8 * num_rows * len(set(num_clusters))  # of the best start alone
    fixed = process_bytes + centroid_bytes + work_bytes + id_bytes
    smallest = 6 * 1024 * dim * 4
    if memory_bytes < fixed + smallest:
        raise UserError(
            f"memory_per_shard: {format_bytes(memory_bytes)} are too little: a shard needs at least "
            f"{format_bytes(fixed + smallest)} ({format_bytes(process_bytes)} for its process, "
            f"{format_bytes(centroid_bytes)} for {sum(num_clusters)} centroids and their sums, "
            f"{format_bytes(id_bytes)} for the ids of {num_rows} vectors, the rest to work in). "
            "Raise it, or use more shards"
        )
    free = memory_bytes - fixed
    is_resident = num_rows * dim * itemsize <= free - smallest
    # Two blocks are in memory while one is read ahead, each beside what it is decoded from.
    most = GPU_ROWS * 4 * dim if on_gpu else MAX_BLOCK_BYTES
    block_rows = min(free // 6, most) // (4 * dim)
    return BlockPlan(is_resident, max(1024, int(block_rows)))


def process_bytes() -> int:
    """Memory of this process that is its own: without shared libraries and Ray's object store, where the system says.

    Linux tells them apart (RssAnon); elsewhere it is the peak of the whole resident set.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory that this process could still take: of the machine, or what is left of a control group's limit.

    None where the system does not say. `root` is where /proc and /sys lie.
    """
    path = root / "proc/meminfo"
    if not path.exists():
        return None
    lines = dict(line.split(":", 1) for line in path.read_text(encoding="ascii").splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    return min([free, *_left_in_groups(root)])


def _left_in_groups(root: Path) -> list[int]:
    """What is left in the process's control group and those above it, of version 1 and 2; kernel doc cgroup-v2.rst."""
    own = root / "proc/self/cgroup"
    left = []
    for line in own.read_text(encoding="utf-8").splitlines() if own.exists() else []:
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            mount, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            mount, limit, used = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # Within a container the group's place is that of the host, of which only the mount's root can be seen.
        parts = Path(place.lstrip("/")).parts
        for folder in [mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]:
            bound, taken = _number(folder / limit), _number(folder / used)
            if bound is not None and taken is not None:
                left.append(max(bound - taken + _file_cache(folder / "memory.stat"), 0))
    return left


def _file_cache(stat: Path) -> int:
    """Pages of files, counted as used, that the kernel gives up when they are needed."""
    lines = stat.read_text(encoding="ascii").splitlines() if stat.is_file() else []
    counts = dict(line.split(" ", 1) for line in lines if " " in line)
    return int(counts.get("total_inactive_file", counts.get("inactive_file", 0)))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # not there, or `max`
        return None


def bytes_per_shard(wanted: int | str | None, num_shards: int) -> int | None:
    """The bound on each shard's memory: what is wanted, or half of what is free here divided by the shards.

    Raises:
        UserError: a text that is no size, or more than is free.
    """
    available = available_bytes()
    if wanted is None:
        return None if available is None else available // 2 // num_shards
    size = parse_bytes(str(wanted), "memory_per_shard")
    if available is not None and size > available:
        raise UserError(
            f"memory_per_shard: {format_bytes(size)} are asked for; only {format_bytes(available)} are free on this "
            "machine"
        )
    return size


def parse_bytes(text: str, name: str) -> int:
    """`300MB`, `2 GiB` or a plain number of bytes.

    Raises:
        UserError: anything else.
    """
    units = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    number = text.strip().lower().rstrip("bgikm").strip()
    unit = text.strip().lower()[len(number) :].strip()
    try:
        value = float(number) * units[unit]
    except (ValueError, KeyError):
        raise UserError(f"{name}: expected a size such as 300MB or 2GiB; got {text!r}") from None
    if not value > 0:
        raise UserError(f"{name}: expected a size above 0; got {text!r}")
    return int(value)


def format_bytes(count: float) -> str:
    """Bytes in the unit that suits them, decimal."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit in ("B", "kB", "MB") else f"{count:.1f} GB"
        count /= 1000
    raise AssertionError("the loop ends with GB")
