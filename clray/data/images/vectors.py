"""Vectors in the place of images, such as the features of a foundation model: each is an image of one pixel."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int

from clray.config.sections import DataConfig
from clray.data.images.decode import BadImageError
from clray.data.images.port import AtHand, Batch, OnCount, Ready
from clray.data.transfer import view
from clray.errors import UserError


@dataclass(frozen=True)
class VectorImages(AtHand):
    """Vectors, float32 [N, dim], which come in batches of [B, dim, 1, 1].

    Attributes:
        rows: the row among all files of each vector, int64 [N].
        files: each with the number of its first row.
    """

    vectors: Float[np.ndarray, "n dim"]
    rows: Int[np.ndarray, " n"]
    files: tuple[tuple[str, int], ...]

    @property
    def channels(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        return 1, 1

    @property
    def has_pixels(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self.vectors)

    def name(self, index: int) -> str:
        row = int(self.rows[index])
        file, first = next((file, first) for file, first in reversed(self.files) if first <= row)
        return f"{file}, row {row - first}"

    def names(self) -> Sequence[str]:
        return [self.name(index) for index in range(len(self))]

    def select(self, indices: Int[np.ndarray, " m"]) -> "VectorImages":
        return replace(self, vectors=self.vectors[indices], rows=self.rows[indices])

    def batches(self, chunks: list[np.ndarray], config: DataConfig) -> Iterator[Batch]:
        vectors = view(self.vectors)
        for chunk in chunks:
            rows = torch.from_numpy(chunk)
            yield vectors[rows][:, :, None, None], rows

    def each(self, indices: Int[np.ndarray, " m"]) -> Iterator[np.ndarray]:
        return (self.vectors[index][:, None, None] for index in indices)

    def ready(self, config: DataConfig) -> Ready:
        """Without the vectors that are not finite, or whose values are all 0 and so have no direction."""
        good, reasons = self._checked()
        if not reasons:
            return Ready(self)
        if config.on_bad_image == "error":
            raise BadImageError(
                f"{reasons[0]}; such are {len(reasons)} of {len(self)} vectors. Leave them out with "
                "data.on_bad_image=skip"
            )
        if len(good) == 0:
            raise UserError(f"data: none of the {len(self)} vectors can be used; the first: {reasons[0]}")
        return Ready(self.select(good), good, tuple(reasons))

    def bad(self, num_threads: int, on_count: OnCount | None) -> list[str]:
        if on_count is not None:
            on_count(len(self))
        return self._checked()[1]

    def encode(self, index: int, size: int | None) -> bytes:
        raise UserError("data: embeddings are no images, and need not be built: training reads them as they are")

    def _checked(self) -> tuple[np.ndarray, list[str]]:
        """The indices of the vectors that can be used, and why the others cannot."""
        is_finite, is_zero = np.isfinite(self.vectors).all(axis=1), (self.vectors == 0).all(axis=1)
        reasons = [
            f"{self.name(int(index))}: {'all values are 0' if is_zero[index] else 'a value is NaN or infinite'}"
            for index in np.flatnonzero(~is_finite | is_zero)
        ]
        return np.flatnonzero(is_finite & ~is_zero), reasons
