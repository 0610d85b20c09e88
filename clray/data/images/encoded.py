"""Encoded images in memory or in files of their own, which are decoded at the start or while training."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int
from PIL import Image

from clray.config.sections import DataConfig
from clray.data.images.ahead import decoded_batches
from clray.data.images.array import ArrayImages
from clray.data.images.decode import (
    BadImageError,
    NoImage,
    Payload,
    PixelRules,
    check_header,
    decode_payload,
    deep_grey_range,
    require_payload,
)
from clray.data.images.file_part import FilePart
from clray.data.images.port import Batch, Decode, DecodedLater, OnCount, Ready, every_nth, require_image_size, save
from clray.data.remote.cache import stamp_of
from clray.data.sampling import uniform_order
from clray.errors import UserError

NUM_THREADS = 4
NUM_LOOKED_AT, DARK = 16, 8
"""So many images are looked at; they are dark where none reaches an eighth of white."""


@dataclass(frozen=True)
class EncodedImages(DecodedLater):
    """Images that are decoded when they are asked for. Arrow arrays hold their places, which a process hands on fast.

    Attributes:
        rows: the names of the images, large_string [N].
        rules: how they become pixels.
        encoded: their bytes, large_binary [N]; null where there are none, None where all are in files.
        files: the files that hold them where there are no bytes, large_binary [N]: names need not be UTF-8.
        spans: the bytes of an image in its file, struct<offset, size> [N]; None where files hold one image each.
        reasons: why there is neither, large_string [N].
    """

    rows: pa.Array
    rules: PixelRules
    encoded: pa.Array | None = None
    files: pa.Array | None = None
    spans: pa.Array | None = None
    reasons: pa.Array | None = None

    @classmethod
    def of_files(cls, files: Iterable[Path | str], rules: PixelRules, rows: Iterable[str] | None = None) -> Self:
        """Images in files of their own, named by `rows` or else by their files."""
        places = [os.fspath(file) for file in files]
        return cls(as_texts(places if rows is None else rows), rules, files=as_places(places))

    @classmethod
    def of_bytes(cls, encoded: Sequence[bytes | None] | pa.Array, rules: PixelRules, rows: Iterable[str]) -> Self:
        """Images in memory, named by `rows`."""
        blobs = encoded if isinstance(encoded, pa.Array) else pa.array(encoded, pa.large_binary())
        return cls(as_texts(rows), rules, encoded=blobs)

    @property
    def image_size(self) -> int | None:
        return self.rules.size

    @property
    def is_sequential(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self.rows)

    def payload(self, index: int) -> Payload | NoImage:
        """An encoded image, or the file that holds one, or why there is neither."""
        if self.encoded is not None and (data := self.encoded[index].as_py()) is not None:
            return bytes(data)
        if self.files is not None and (file := self.files[index].as_py()) is not None:
            path = Path(os.fsdecode(file))
            return path if self.spans is None else FilePart(path, **self.spans[index].as_py())
        reason = None if self.reasons is None else self.reasons[index].as_py()
        return NoImage(reason or "null")

    def name(self, index: int) -> str:
        return str(self.rows[index])

    def names(self) -> Sequence[str]:
        texts: list[str] = self.rows.to_pylist()
        return texts

    def decode(self, index: int) -> np.ndarray:
        """Image `index` as uint8 [3, H, W]; raises BadImageError naming its row."""
        return decode_payload(self.payload(index), self.name(index), self.rules)

    def select(self, indices: Int[np.ndarray, " m"]) -> Self:
        chosen = pa.array(indices)

        def taken(values: pa.Array | None) -> pa.Array | None:
            return None if values is None else values.take(chosen)

        return replace(
            self,
            rows=self.rows.take(chosen),
            encoded=taken(self.encoded),
            files=taken(self.files),
            spans=taken(self.spans),
            reasons=taken(self.reasons),
        )

    def shards(self, world_size: int) -> list[np.ndarray]:
        return every_nth(len(self), world_size)

    def order(
        self, indices: Int[np.ndarray, " m"], generator: np.random.Generator, config: DataConfig
    ) -> Int[np.ndarray, " m"]:
        return uniform_order(indices, generator)

    def batches(self, chunks: list[np.ndarray], config: DataConfig) -> Iterator[Batch]:
        """Decoded ahead in threads."""
        assert self.size is not None, "`ready` requires a size of images that are decoded while training"
        with self.decoding(1) as decoder:
            yield from decoded_batches(chunks, decoder, (self.channels, *self.size), config)

    @contextmanager
    def decoding(self, num_held: int) -> Iterator[Callable[[int], Decode]]:
        yield lambda index: partial(self.decode, index)

    def ready(self, config: DataConfig) -> Ready:
        """Decoded where that fits in `data.memory_limit_mib`; of more only the headers are read."""
        if self.fits(config):
            return self._decode_all(config.on_bad_image)
        require_image_size(config)
        good, _, reasons = _for_each(
            len(self), lambda index: check_header(self.payload(index), self.name(index)), config.on_bad_image
        )
        return Ready(self.select(good), good, tuple(reasons)) if reasons else Ready(self)

    def fits(self, config: DataConfig) -> bool:
        """Whether the images are held in memory once decoded."""
        return self._decoded_bytes() <= config.memory_limit_mib * 2**20

    def stamps(self) -> Iterator[bytes | pa.Buffer]:
        """What tells these images, in their order, from others: their bytes, or their files as they were written."""
        if self.encoded is not None:
            for blob in self.encoded:
                data = blob.as_buffer()
                yield b"-" if data is None else f"{data.size} ".encode()
                if data is not None:
                    yield data
        if self.files is not None:
            files: list[bytes | None] = self.files.to_pylist()
            for file in files:
                yield (file or b"") + b"\0"
            yield from (stamp_of(Path(os.fsdecode(file))).encode() for file in dict.fromkeys(files) if file is not None)
        if self.spans is not None:
            for name in ("offset", "size"):
                yield pc.struct_field(self.spans, name).to_numpy(zero_copy_only=False).tobytes()

    def bad(self, num_threads: int, on_count: OnCount | None) -> list[str]:
        problems = []
        with ThreadPoolExecutor(num_threads) as pool:
            for count, reason in enumerate(pool.map(self._reason, range(len(self))), start=1):
                if reason is not None:
                    problems.append(reason)
                if on_count is not None:
                    on_count(count)
        return problems

    def notes(self) -> list[str]:
        """Where the first deep grey images leave most of their range unused, so that they are dark."""
        reached: dict[float, float] = {}
        for index in range(min(len(self), NUM_LOOKED_AT)):
            payload = self.payload(index)
            if not isinstance(payload, NoImage) and (found := deep_grey_range(payload, self.rules)) is not None:
                most, white = found
                reached[white] = max(reached.get(white, 0), most)
        return [
            f"grey images of more than 8 bits are scaled by the range of their mode, 0..{white:g}, and the first "
            f"{NUM_LOOKED_AT} reach {most:g}, which is dark; name the value of white with data.max_pixel_value"
            for white, most in reached.items()
            if most < white / DARK
        ]

    def encode(self, index: int, size: int | None) -> bytes:
        payload = require_payload(self.payload(index), self.name(index))
        pixels = decode_payload(payload, self.name(index), replace(self.rules, size=size))
        if size is not None:
            return save(Image.fromarray(pixels.transpose(1, 2, 0)), "JPEG")
        return payload if isinstance(payload, bytes) else payload.read_bytes()

    def _reason(self, index: int) -> str | None:
        try:
            self.decode(index)
        except BadImageError as error:
            return str(error)
        return None

    def _decoded_bytes(self) -> int:
        """Size of all images once decoded, judged by the first that can be."""
        for index in range(len(self)):
            try:
                return len(self) * self.decode(index).nbytes
            except BadImageError:
                continue
        return 0

    def _decode_all(self, on_bad: str) -> Ready:
        good, decoded, reasons = _for_each(len(self), self.decode, on_bad)
        if not decoded:
            raise UserError(f"data: none of the {len(self)} images can be decoded; the first: {reasons[0]}")
        shapes = {image.shape for image in decoded}
        if len(shapes) > 1:
            odd = next(i for i, image in enumerate(decoded) if image.shape != decoded[0].shape)
            first, other = decoded[0].shape[1:], decoded[odd].shape[1:]
            raise UserError(
                f"{self.name(int(good[odd]))}: the image is {other[1]}x{other[0]} pixels where the first is "
                f"{first[1]}x{first[0]}. Bring them to one size with data.image_size={min(first)}"
            )
        return Ready(
            ArrayImages(np.stack(decoded), [self.name(i) for i in good]), good if reasons else None, tuple(reasons)
        )


def as_places(files: Iterable[str | None]) -> pa.Array:
    """File names as the system writes them, large_binary."""
    return pa.array([None if file is None else os.fsencode(file) for file in files], pa.large_binary())


def as_texts(names: Iterable[str]) -> pa.Array:
    """Names for people, large_string; bytes that are no UTF-8 are shown as `\\udc..`."""
    return pa.array([name.encode("utf-8", "backslashreplace").decode() for name in names], pa.large_string())


def _for_each(count: int, work: Callable[[int], Any], on_bad: str) -> tuple[np.ndarray, list[Any], list[str]]:
    """Call `work` on every row in threads (PIL releases the interpreter lock); keep what succeeds."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        results = list(pool.map(partial(_attempt, work, on_bad), range(count)))
    good = [i for i, result in enumerate(results) if not isinstance(result, BadImageError)]
    reasons = [str(result) for result in results if isinstance(result, BadImageError)]
    return np.array(good, np.int64), [results[i] for i in good], reasons


def _attempt(work: Callable[[int], Any], on_bad: str, index: int) -> Any:
    try:
        return work(index)
    except BadImageError as error:
        if on_bad == "error":
            raise
        return error
