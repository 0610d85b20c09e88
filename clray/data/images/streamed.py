"""Parquet files larger than memory: images read by row groups, of which a worker holds a few at a time."""

import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int

from clray.config.sections import DataConfig
from clray.data.images.ahead import decoded_batches
from clray.data.images.decode import BadImageError, NoImage, PixelRules, decode_payload
from clray.data.images.port import Batch, Decode, DecodedLater, OnCount, Ready, require_image_size
from clray.data.remote.cache import present, stamp_of
from clray.data.sampling import buffered_order
from clray.errors import UserError


@dataclass(frozen=True)
class RowGroup:
    """Where a run of rows lies; `start` is its first row among all files."""

    path: Path
    number: int
    start: int
    num_rows: int
    num_bytes: int
    """Of its image column, uncompressed."""
    column: str
    """The image column, or its field of bytes (`image.bytes`)."""
    start_in_file: int = 0


@dataclass(frozen=True)
class StreamedImages(DecodedLater):
    """Encoded images in Parquet files; holds their places only, so it travels to any worker that can read the files.

    Attributes:
        rows: the row among all files of each image, int64 [N], ascending.
        rules: how they become pixels.
    """

    groups: tuple[RowGroup, ...]
    rows: np.ndarray
    rules: PixelRules

    @property
    def image_size(self) -> int | None:
        return self.rules.size

    @property
    def is_sequential(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        return self._name_of_row(int(self.rows[index]))

    def names(self) -> Sequence[str]:
        return [self.name(index) for index in range(len(self))]

    def select(self, indices: Int[np.ndarray, " m"]) -> "StreamedImages":
        """The images at `indices`, which must ascend."""
        return replace(self, rows=self.rows[indices])

    def blocks(self) -> list[np.ndarray]:
        """The indices of the images of each row group that holds any."""
        bounds = np.searchsorted(self.rows, [group.start for group in self.groups[1:]])
        return [block for block in np.split(np.arange(len(self)), bounds) if len(block)]

    def shards(self, world_size: int) -> list[np.ndarray]:
        """A worker has whole row groups."""
        blocks = self.blocks()
        ends = np.cumsum([len(block) for block in blocks])
        cuts = np.searchsorted(ends, [len(self) * rank / world_size for rank in range(1, world_size)], side="right")
        parts = np.split(np.arange(len(blocks)), cuts)
        return [np.concatenate([np.empty(0, np.int64), *(blocks[i] for i in part)]) for part in parts]

    def order(
        self, indices: Int[np.ndarray, " m"], generator: np.random.Generator, config: DataConfig
    ) -> Int[np.ndarray, " m"]:
        """Shuffled within `data.shuffle_row_groups` of the worker's own row groups at a time."""
        own = [block for block in self.blocks() if indices[0] <= block[0] <= indices[-1]]
        return buffered_order(own, config.shuffle_row_groups, generator)

    def batches(self, chunks: list[np.ndarray], config: DataConfig) -> Iterator[Batch]:
        """Reads row groups and decodes some batches ahead in threads, and keeps the row groups used last."""
        assert self.size is not None, "`ready` requires a size"
        # A batch may begin in one set of row groups and end in the next.
        with self.decoding(config.shuffle_row_groups + 1) as decoder:
            yield from decoded_batches(chunks, decoder, (self.channels, *self.size), config)

    @contextmanager
    def decoding(self, num_held: int) -> Iterator[Callable[[int], Decode]]:
        """Keeps the row groups used last."""
        with _Reader(self, num_held) as reader:

            def decoder(index: int) -> Decode:
                row = int(self.rows[index])
                return partial(self._decode_later, row, reader.group_of(row))

            yield decoder

    def ready(self, config: DataConfig) -> Ready:
        require_image_size(config)
        if config.on_bad_image == "error":
            return Ready(self)  # a pass over all of it would cost as much as an epoch; a bad image is named in time
        good, reasons = self._bad_rows()
        return Ready(self.select(good), good, tuple(reasons)) if reasons else Ready(self)

    def fits(self, config: DataConfig) -> bool:
        """Never: such images stay in their files."""
        return False

    def stamps(self) -> Iterator[bytes | pa.Buffer]:
        """What tells these images, in their order, from others: where they lie, in files as they were written."""
        for group in self.groups:
            yield json.dumps([str(group.path), group.number, group.start, group.num_rows, group.column]).encode()
        yield from (stamp_of(path).encode() for path in dict.fromkeys(group.path for group in self.groups))
        yield self.rows.astype("<i8").tobytes()

    def bad(self, num_threads: int, on_count: OnCount | None) -> list[str]:
        return self._bad_rows()[1]

    def notes(self) -> list[str]:
        return []

    def encode(self, index: int, size: int | None) -> bytes:
        raise UserError("data: these are Parquet files beyond data.memory_limit_mib already, which training streams")

    def _bad_rows(self) -> tuple[np.ndarray, list[str]]:
        """One pass over everything: the indices of the images that can be decoded, and why the others cannot."""
        good, reasons = [], []
        with _Reader(self, 1) as reader:
            for index, row in enumerate(self.rows.tolist()):
                try:
                    self._decode_later(row, reader.group_of(row))
                    good.append(index)
                except BadImageError as error:
                    reasons.append(str(error))
        return np.array(good, np.int64), reasons

    def _name_of_row(self, row: int) -> str:
        group = self.groups[_group_of(self.groups, row)]
        return f"{group.path}, row {row - group.start + group.start_in_file}"

    def _decode_later(self, row: int, column: Future[pa.Array]) -> np.ndarray:
        """An image once its row group is read."""
        start = self.groups[_group_of(self.groups, row)].start
        payload: bytes | None = column.result()[row - start].as_py()
        return decode_payload(NoImage("null") if payload is None else payload, self._name_of_row(row), self.rules)


class _Reader:
    """Reads whole row groups in a thread of its own and keeps those used last."""

    def __init__(self, images: StreamedImages, num_kept: int) -> None:
        self.images, self.num_kept = images, num_kept
        self.kept: OrderedDict[int, Future[pa.Array]] = OrderedDict()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="reader")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.shutdown(wait=True, cancel_futures=True)

    def group_of(self, row: int) -> Future[pa.Array]:
        """The encoded images of a row's group, which may still be read."""
        number = _group_of(self.images.groups, row)
        if number not in self.kept:
            while len(self.kept) >= self.num_kept:
                self.kept.popitem(last=False)
            self.kept[number] = self.thread.submit(_read_group, self.images.groups[number])
        self.kept.move_to_end(number)
        return self.kept[number]


def _read_group(group: RowGroup) -> pa.Array:
    with pq.ParquetFile(present(group.path)) as file:
        column = file.read_row_group(group.number, columns=[group.column])
    return pa.concat_arrays([image_bytes(chunk) for chunk in column.column(0).chunks])


def _group_of(groups: tuple[RowGroup, ...], row: int) -> int:
    return bisect_right(groups, row, key=lambda group: group.start) - 1


def image_bytes(column: pa.Array) -> pa.Array:
    """The encoded images, large_binary, of a column that holds them plainly or as `struct<bytes, path>`."""
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary())


def image_paths(column: pa.Array) -> list[str | None]:
    """The paths of a column of `struct<bytes, path>`; None where there is none, or the column holds bytes only."""
    if not pa.types.is_struct(column.type) or "path" not in [field.name for field in column.type]:
        return [None] * len(column)
    return [path if isinstance(path, str) else None for path in pc.struct_field(column, "path").to_pylist()]


def find_row_groups(files: list[Path], columns: list[str]) -> tuple[RowGroup, ...]:
    """The row groups of the files that hold rows; `columns` names the column of each file, or its field."""
    groups, start = [], 0
    for path, column in zip(files, columns, strict=True):
        metadata, first = pq.read_metadata(present(path)), start
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            sizes = [
                group.column(i).total_uncompressed_size
                for i in range(group.num_columns)
                if group.column(i).path_in_schema == column
            ]
            if group.num_rows:
                place = (path.resolve(), number, start, group.num_rows, sum(sizes), column, start - first)
                groups.append(RowGroup(*place))
                start += group.num_rows
    return tuple(groups)
