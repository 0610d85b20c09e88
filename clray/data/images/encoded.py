"""Encoded images in memory or in files of their own, which are decoded at the start or while training."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Int
from PIL import Image
from torch.utils.data import DataLoader

from clray.config.sections import DataConfig
from clray.data.images.array import ArrayImages
from clray.data.images.decode import (
    BadImageError,
    NoImage,
    Payload,
    check_header,
    decode_payload,
    deep_grey_range,
    require_payload,
)
from clray.data.images.port import Batch, DecodedLater, OnCount, Ready, every_nth, require_image_size, save
from clray.data.sampling import uniform_order
from clray.errors import UserError

NUM_THREADS = 4
NUM_LOOKED_AT, DARK = 16, 8
"""So many images are looked at; they are dark where none reaches an eighth of white."""


@dataclass(frozen=True)
class EncodedImages(DecodedLater):
    """Images that are decoded when they are asked for.

    Attributes:
        payloads: one for each image, a pyarrow binary array or a list.
        rows: the names of the images.
        image_size: height and width to which they are brought, or None.
        white: that of `decode_image`.
    """

    payloads: list[Payload | NoImage | None] | pa.Array
    rows: tuple[str, ...]
    image_size: int | None
    white: float | None = None

    @property
    def is_sequential(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self.payloads)

    def payload(self, index: int) -> Payload | NoImage | None:
        """An encoded image, or the file that holds one."""
        if isinstance(self.payloads, list):
            return self.payloads[index]
        encoded: bytes | None = self.payloads[index].as_py()
        return encoded

    def name(self, index: int) -> str:
        return self.rows[index]

    def names(self) -> Sequence[str]:
        return self.rows

    def decode(self, index: int) -> np.ndarray:
        """Image `index` as uint8 [3, H, W]; raises BadImageError naming its row."""
        return decode_payload(self.payload(index), self.image_size, self.rows[index], self.white)

    def select(self, indices: Int[np.ndarray, " m"]) -> "EncodedImages":
        if isinstance(self.payloads, list):
            payloads: Any = [self.payloads[i] for i in indices]
        else:
            payloads = self.payloads.take(pa.array(indices))
        return replace(self, payloads=payloads, rows=tuple(self.rows[i] for i in indices))

    def shards(self, world_size: int) -> list[np.ndarray]:
        return every_nth(len(self), world_size)

    def order(
        self, indices: Int[np.ndarray, " m"], generator: np.random.Generator, config: DataConfig
    ) -> Int[np.ndarray, " m"]:
        return uniform_order(indices, generator)

    def batches(self, chunks: list[np.ndarray], config: DataConfig) -> Iterator[Batch]:
        """Decoded in a DataLoader's processes."""
        yield from DataLoader(
            _Decoder(self),
            batch_sampler=[chunk.tolist() for chunk in chunks],
            num_workers=config.num_decoders,
            collate_fn=_collate,
        )

    def ready(self, config: DataConfig) -> Ready:
        """Decoded where that fits in `data.memory_limit_mib`; of more only the headers are read."""
        if self._decoded_bytes() <= config.memory_limit_mib * 2**20:
            return self._decode_all(config.on_bad_image)
        require_image_size(config)
        good, _, reasons = _for_each(
            len(self), lambda index: check_header(self.payload(index), self.rows[index]), config.on_bad_image
        )
        return Ready(self.select(good), good, tuple(reasons)) if reasons else Ready(self)

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
            if isinstance(payload, bytes | Path) and (found := deep_grey_range(payload, self.white)) is not None:
                most, white = found
                reached[white] = max(reached.get(white, 0), most)
        return [
            f"grey images of more than 8 bits are scaled by the range of their mode, 0..{white:g}, and the first "
            f"{NUM_LOOKED_AT} reach {most:g}, which is dark; name the value of white with data.max_pixel_value"
            for white, most in reached.items()
            if most < white / DARK
        ]

    def encode(self, index: int, size: int | None) -> bytes:
        payload = require_payload(self.payload(index), self.rows[index])
        pixels = decode_payload(payload, size, self.rows[index], self.white)
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
                f"{self.rows[good[odd]]}: the image is {other[1]}x{other[0]} pixels where the first is "
                f"{first[1]}x{first[0]}. Bring them to one size with --set data.image_size={min(first)}"
            )
        return Ready(ArrayImages(np.stack(decoded)), good if reasons else None, tuple(reasons))


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


class _Decoder(torch.utils.data.Dataset[tuple[np.ndarray, int]]):
    def __init__(self, images: EncodedImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.images.decode(index), index


def _collate(samples: list[tuple[np.ndarray, int]]) -> Batch:
    return torch.from_numpy(np.stack([image for image, _ in samples])), torch.tensor([index for _, index in samples])
