"""Decoded pixels in a file of the cache, made once for all runs of a node; it appears whole or not at all.

Where the process that makes it is killed, the next one goes on behind the last block that reached the disk.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import features

from clray.config.sections import DataConfig
from clray.data.images.ahead import decoded_batches
from clray.data.images.decode import BadImageError
from clray.data.images.encoded import EncodedImages
from clray.data.images.port import Decode
from clray.data.images.streamed import StreamedImages
from clray.data.remote.local import cache_root
from clray.errors import UserError
from clray.folder_lock import in_turn

FOLDER, PIXELS, PARTIAL, ABOUT = "clray-decoded", ".pixels", ".partial", ".json"
FORMAT = 1
"""Changes where the same images would be decoded otherwise."""
BLOCK_BYTES = 32 * 2**20
UNUSED_SECONDS = 3600
"""What nobody read for so long makes room for others."""
TOUCH_SECONDS = 600
"""Who reads a store says so after so long again."""
FULL = (errno.ENOSPC, errno.EDQUOT)
Bad = dict[int, str]
"""Why images cannot be decoded, by their index."""
_kept: dict[Path, float] = {}
"""When this process last said that a store is in use."""


@dataclass(frozen=True)
class Store:
    """The pixels of images of one size, uint8 [N, 3, H, W], by the key of what they are decoded from.

    Attributes:
        source: the encoded images; a node that lacks the file makes it from them.
    """

    source: EncodedImages | StreamedImages
    config: DataConfig
    root: Path
    key: str

    @classmethod
    def of(cls, source: EncodedImages | StreamedImages, config: DataConfig) -> "Store":
        return cls(source, config, cache_root(config), key_of(source))

    @property
    def path(self) -> Path:
        return self.root / FOLDER / f"{self.key}{PIXELS}"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        assert self.source.size is not None, "images of a store have a size"
        return (len(self.source), self.source.channels, *self.source.size)

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape))

    def pixels(self) -> np.ndarray:
        """The file, mapped; raises UserError as `make`."""
        self.keep()
        try:
            return _opened(self.path, self.shape)
        except (OSError, ValueError):  # another node, or it was removed
            self.make()
            return _opened(self.path, self.shape)

    def keep(self) -> None:
        """Say that it is in use, so that no other process makes room of it; to be called wherever it is read."""
        if time.monotonic() - _kept.get(self.path, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            _kept[self.path] = time.monotonic()
            with suppress(OSError):
                os.utime(self.path)

    def make(self) -> Bad:
        """Decode what is not there yet; the pixels of images that cannot be decoded are 0.

        Raises:
            BadImageError: for the first of those where `data.on_bad_image` is "error".
            UserError: the cache cannot be written, or has no room.
        """
        bad = self._known()
        if bad is None:
            with self._writing():
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._alone():
                bad = self._known()  # another process may have made it meanwhile
                if bad is None:
                    bad = self._make()
        if bad and self.config.on_bad_image == "error":
            raise BadImageError(bad[min(bad)])
        return bad

    def _known(self) -> Bad | None:
        """What the whole file says of bad images; None where there is none."""
        try:
            if self.path.stat().st_size != self.num_bytes:
                return None
            os.utime(self.path)  # what was used last is removed last
        except OSError:
            return None
        done, bad = self._progress()
        return bad if done == len(self.source) else None

    def _progress(self) -> tuple[int, Bad]:
        """How many images reached the disk, and which of them are bad."""
        try:
            about = json.loads(self.path.with_suffix(ABOUT).read_text(encoding="utf-8"))
            return int(about["done"]), {int(index): str(reason) for index, reason in about["bad"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):  # none, or a damaged one
            return 0, {}

    def _make(self) -> Bad:
        partial = self.path.with_suffix(PARTIAL)
        row_bytes = self.num_bytes // len(self.source)
        done, bad = self._progress()
        if not partial.exists() or partial.stat().st_size < done * row_bytes:
            done, bad = 0, {}
        with self._writing():
            self._make_room(self.num_bytes - done * row_bytes)
            file = partial.open("r+b" if done else "wb")
        with file:
            file.truncate(done * row_bytes)
            file.seek(0, os.SEEK_END)
            for block in self._blocks(done, max(1, BLOCK_BYTES // row_bytes), bad):
                with self._writing():
                    file.write(block.data)
                    file.flush()
                    os.fsync(file.fileno())
                    done += len(block)
                    # Copied first: images are decoded ahead meanwhile.
                    self._write_about(done, {index: reason for index, reason in list(bad.items()) if index < done})
        with self._writing():
            partial.replace(self.path)
        return bad

    def _blocks(self, start: int, count: int, bad: Bad) -> Iterator[np.ndarray]:
        """Decoded in threads; `bad` gathers the images that cannot be."""
        stop = len(self.source)
        chunks = [np.arange(at, min(at + count, stop)) for at in range(start, stop, count)]
        # With none, training decodes in its own thread; nothing waits for this one.
        config = self.config.model_copy(update={"num_decoders": self.config.num_decoders or None})
        with self.source.decoding(2) as decoder:

            def tolerant(index: int) -> Decode:
                decode = decoder(index)

                def decoded() -> np.ndarray:
                    try:
                        return decode()
                    except BadImageError as error:
                        if self.config.on_bad_image == "error":
                            raise
                        bad[index] = str(error)
                        return np.zeros(self.shape[1:], np.uint8)

                return decoded

            for batch, _ in decoded_batches(chunks, tolerant, self.shape[1:], config, is_pinned=False):
                yield batch.numpy()

    def _write_about(self, done: int, bad: Bad) -> None:
        about = self.path.with_suffix(ABOUT)
        unfinished = about.with_name(f".{about.name}")
        unfinished.write_text(json.dumps({"done": done, "bad": bad}), encoding="utf-8")
        unfinished.replace(about)

    def _make_room(self, num_bytes: int) -> None:
        """Remove stores that nobody used lately, the oldest first, until so many bytes fit."""
        bound = self.config.cache_limit_gib * 2**30
        with in_turn(self.path.parent / ".room.lock"):
            others = sorted(_others(self.path))
            total = sum(size for _, size, _ in others)
            while total + self.num_bytes > bound or shutil.disk_usage(self.root).free < num_bytes:
                if not others or time.time() - others[0][0] < UNUSED_SECONDS:
                    break
                _, size, path = others.pop(0)
                for each in (path, path.with_suffix(ABOUT)):
                    each.unlink(missing_ok=True)
                total -= size
        if total + self.num_bytes > bound:
            raise UserError(
                f"data.store=memmap: the decoded images take {_gib(self.num_bytes)} GiB, and others of the last hour "
                f"{_gib(total)} GiB, more than data.cache_limit_gib={self.config.cache_limit_gib:g}; raise it, or use "
                "data.store=decode"
            )
        if shutil.disk_usage(self.root).free < num_bytes:
            raise self._full()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process of the node at a time; an OSError of the block itself is left as it is."""
        turn = in_turn(self.path.with_suffix(".lock"))
        with self._writing():
            turn.__enter__()
        try:
            yield
        finally:
            turn.__exit__(None, None, None)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise self._full() from error
            raise UserError(
                f"data.cache_path: {self.root} cannot be written ({error.strerror or error}); choose another place"
            ) from error

    def _full(self) -> UserError:
        return UserError(
            f"data.cache_path: {self.root} is full: the decoded images take {_gib(self.num_bytes)} GiB "
            "(data.store=memmap); free some, choose another place, or use data.store=decode"
        )


def key_of(source: EncodedImages | StreamedImages) -> str:
    """What the pixels depend on: the images or the stamps of their files, the rules for pixels, and the decoder."""
    versions = {name: features.version(name) for name in ("pil", "jpg", "zlib", "webp", "libtiff", "avif")
                if name in (*features.modules, *features.codecs)}  # fmt: skip
    digest = hashlib.sha256(json.dumps([FORMAT, asdict(source.rules), versions], sort_keys=True).encode())
    for part in source.stamps():
        digest.update(part)
    return digest.hexdigest()[:32]


def _others(own: Path) -> list[tuple[float, int, Path]]:
    """When each other store was used last, its size, and its file."""
    found = []
    for path in own.parent.iterdir():
        if path.suffix in (PIXELS, PARTIAL) and path.stem != own.stem:
            with suppress(OSError):  # gone meanwhile
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
    return found


@lru_cache(maxsize=16)
def _opened(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    if path.stat().st_size != np.prod(shape):
        raise ValueError(f"{path}: of another size")
    return np.memmap(path, np.uint8, "r", shape=shape)


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.3g}"
