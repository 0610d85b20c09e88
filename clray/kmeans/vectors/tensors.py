"""Vectors in a tensor, on the device where they are searched; widened to float32 a block at a time."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clray.kmeans.vectors.source import ArraySlice, FileSlice

LOAD_ROWS = 65_536


@dataclass(frozen=True, eq=False)
class TensorRows:
    """Vectors [n, dim], floats or 8-bit integers, on any device, read relative to `origin`.

    Attributes:
        origin: float32 or float64 [dim], on the same device.
        is_unit: each vector is scaled to unit length as it is read, before the origin is taken off.
    """

    tensor: Tensor
    origin: Tensor | None = None
    is_unit: bool = False

    @property
    def dim(self) -> int:
        return self.tensor.shape[1]

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __len__(self) -> int:
        return len(self.tensor)

    def about(self, origin: np.ndarray | None) -> "TensorRows":
        """The same vectors, read relative to this point."""
        return replace(self, origin=None if origin is None else torch.from_numpy(origin).to(self.device))

    def block(self, start: int, stop: int) -> Tensor:
        """Rows start..stop, float32."""
        return self._read(self.tensor[start:stop])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Copies of some vectors, by ascending row, float32 [m, dim]."""
        return self._read(self.tensor[torch.from_numpy(rows).to(self.device)]).cpu().numpy()

    def numpy(self) -> np.ndarray:
        """All vectors, float32 [n, dim], in the memory of the host."""
        return self._read(self.tensor).cpu().numpy()

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """As `numpy()`, for `numpy.asarray`."""
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def _read(self, rows: Tensor) -> Tensor:
        if self.is_unit:
            rows = F.normalize(rows.float(), dim=1)
        return (rows if self.origin is None else rows - self.origin).float()


def tensor_of(vectors: np.ndarray | ArraySlice | FileSlice, device: torch.device) -> TensorRows:
    """Vectors of an array, or of files that are read once, on a device, in the type that they are stored in."""
    if isinstance(vectors, np.ndarray):
        return TensorRows(_from_numpy(vectors).to(device))
    if isinstance(vectors, ArraySlice):
        return TensorRows(_from_numpy(vectors.array).to(device)).about(vectors.origin)
    held: Tensor | None = None
    start = 0
    for block in vectors.stored_blocks(LOAD_ROWS):
        part = _from_numpy(block)
        if held is None:
            held = torch.empty(len(vectors), vectors.dim, dtype=part.dtype, device=device)
        if part.dtype != held.dtype:  # files of several types in a folder
            held = held.to(torch.promote_types(part.dtype, held.dtype))
        held[start : start + len(part)] = part.to(device)
        start += len(part)
    assert held is not None, "a slice holds at least one vector"
    return TensorRows(held).about(vectors.origin)


def _from_numpy(values: np.ndarray) -> Tensor:
    values = values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        # An array of Ray's object store is read-only; nothing here writes into it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(values))
