from pathlib import Path

import numpy as np
import pytest

from clray.errors import UserError
from clray.kmeans.memory import available_bytes, format_bytes, parse_bytes, plan_blocks, process_bytes

MB = 10**6
V1_LIMIT = "limit_in_bytes"


def test_a_slice_that_fits_is_kept_and_one_that_does_not_is_read_in_blocks() -> None:
    small = plan_blocks(10_000, 128, [100], memory_bytes=300 * MB, process_bytes=150 * MB)
    large = plan_blocks(4_000_000, 128, [1000], memory_bytes=300 * MB, process_bytes=150 * MB)
    assert small.is_resident
    assert not large.is_resident
    assert large.block_rows * 128 * 4 * 3 < 150 * MB


def test_the_figure_that_is_needed_is_enough() -> None:
    with pytest.raises(UserError, match=r"at least (\d+) MB") as caught:
        plan_blocks(10**6, 64, [5000], memory_bytes=100 * MB, process_bytes=90 * MB)
    needed = int(str(caught.value).split("at least ")[1].split()[0]) + 1
    plan_blocks(10**6, 64, [5000], memory_bytes=needed * MB, process_bytes=90 * MB)


def test_the_process_is_seen_to_grow() -> None:
    before = process_bytes()
    kept = np.ones(200 * MB, np.int8)
    assert process_bytes() - before > 100 * MB
    assert kept[0] == 1


@pytest.mark.parametrize(
    ("text", "expected"), [("300MB", 300 * MB), ("2 GiB", 2**31), ("1024", 1024), ("1.5kb", 1500), ("7B", 7)]
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert parse_bytes(text, "x") == expected


@pytest.mark.parametrize("text", ["", "MB", "-3MB", "3 furlongs", "nan", "0"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="x: expected a size"):
        parse_bytes(text, "x")


def test_sizes_are_shown_in_their_unit() -> None:
    assert [format_bytes(n) for n in (12, 3400, 300 * MB, 20_500 * MB)] == ["12 B", "3 kB", "300 MB", "20.5 GB"]


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/\n", {}, 8000),
        ("0::/\n", {"memory.max": "max", "memory.current": "1"}, 8000),
        ("0::/\n", {"memory.max": "4096000", "memory.current": "1024000"}, 3000),
        ("0::/a/b\n", {"a/memory.max": "2048000", "a/memory.current": "0", "a/b/memory.max": "max"}, 2000),
        ("0::/of/the/host\n", {"memory.max": "1024000", "memory.current": "2048000"}, 0),
        ("5:cpu:/\n4:memory:/x\n", {f"memory/memory.{V1_LIMIT}": "1024000", "memory/memory.usage_in_bytes": "0"}, 1000),
        ("4:memory:/\n", {f"memory/memory.{V1_LIMIT}": str(2**63 - 4096), "memory/memory.usage_in_bytes": "9"}, 8000),
        ("0::/\n", {"memory.max": "2048000", "memory.current": "2048000", "memory.stat": "inactive_file 4096"}, 4),
    ],
)  # fmt: skip
def test_the_limit_that_applies_is_read(tmp_path: Path, group: str, files: dict[str, str], expected: int) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text(group)
    for name, text in files.items():
        path = tmp_path / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_bytes(tmp_path) == expected * 1024
