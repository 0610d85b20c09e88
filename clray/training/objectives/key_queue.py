"""The keys of earlier batches, in a ring where a new batch overwrites the oldest.

Sizes and places are known on the host, so that nothing here waits for a GPU.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


class KeyQueue:
    """The newest batch of keys, and up to `size` of those before it.

    They lie newest first from row `start` on, around the end of the ring: a batch is written in front of those before
    it. Until the ring is full they end where it ends. What is read of it holds until the next batch is pushed.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        """Args: size: keys that are kept beside the newest batch."""
        self.size, self.device = size, device
        self.start: int
        self.num_held: int
        self._place(torch.empty(0, 0), torch.empty(0, dtype=torch.int64), num_newest=0, start=0)

    def push(self, keys: Float[Tensor, "batch dim"], indices: Int[Tensor, " batch"]) -> None:
        """Take the keys of a batch and their dataset indices; the batch before is then among the older ones."""
        capacity = self.size + len(keys)
        if self._keys.shape != (capacity, keys.shape[1]):
            # The first batch, or one of another size.
            held, held_indices = self._newest()
            self._place(held.reshape(-1, keys.shape[1]), held_indices, num_newest=len(keys), start=None)
        self.start = (self.start - len(keys)) % capacity
        self._write(keys.detach(), indices)
        self.num_newest, self.num_held = len(keys), min(self.num_held + len(keys), capacity)

    def all(self) -> tuple[Float[Tensor, "n dim"], Int[Tensor, " n"]]:
        """After a push: all keys, the newest batch among them, and their dataset indices, in the order of the ring."""
        first = len(self._keys) - self.num_held
        return self._keys[first:], self._indices[first:]

    def older(self) -> list[Float[Tensor, "_ dim"]]:
        """The keys before the newest batch, in at most two pieces."""
        return [self._keys[rows] for rows in self._rows(self.num_newest, self.num_held)]

    def state_dict(self) -> dict[str, Any]:
        """The newest `size` keys, newest first, and what puts them back into their rows."""
        keys, indices = self._newest()
        return {"keys": keys, "key_indices": indices, "start": self.start, "num_newest": self.num_newest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; older checkpoints hold the keys alone."""
        keys, indices = (state[name][: self.size] for name in ("keys", "key_indices"))
        start = state.get("start") if len(keys) == self.size else None
        self._place(keys, indices, num_newest=state.get("num_newest", 0), start=start)

    def _newest(self) -> tuple[Tensor, Tensor]:
        """The newest `size` keys and their dataset indices, newest first."""
        rows = self._rows(0, min(self.num_held, self.size))
        keys, indices = [self._keys[each] for each in rows], [self._indices[each] for each in rows]
        return (torch.cat(keys), torch.cat(indices)) if rows else (self._keys[:0], self._indices[:0])

    def _place(self, keys: Tensor, indices: Tensor, *, num_newest: int, start: int | None) -> None:
        """A new ring that holds these, from row `start` on or else up to its end."""
        capacity = self.size + num_newest
        self._keys = torch.zeros(capacity, keys.shape[1], device=self.device)
        self._indices = torch.zeros(capacity, dtype=torch.int64, device=self.device)
        self.start = capacity - len(keys) if start is None else start % capacity
        self.num_held, self.num_newest = len(keys), num_newest
        self._write(keys, indices)

    def _write(self, keys: Tensor, indices: Tensor) -> None:
        done = 0
        for rows in self._rows(0, len(keys)):
            taken = slice(done, done + rows.stop - rows.start)
            self._keys[rows], self._indices[rows] = keys[taken], indices[taken]
            done = taken.stop

    def _rows(self, first: int, stop: int) -> list[slice]:
        """Where the keys from number `first` to `stop` lie, newest first."""
        capacity = len(self._keys)
        begin, end = self.start + first, self.start + stop
        pieces = (slice(begin, min(end, capacity)), slice(max(begin - capacity, 0), end - capacity))
        return [each for each in pieces if each.start < each.stop]
