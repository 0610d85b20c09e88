"""Where the members of a tar lie, found without unpacking it; names are keys alone, and lead nowhere."""

import tarfile
from dataclasses import dataclass
from pathlib import Path

from clray.data.readers.places import is_hidden, require_file
from clray.data.remote.cache import present
from clray.errors import UserError

BLOCK = tarfile.BLOCKSIZE
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}
"""How files begin that are compressed as a whole, so that no member can be found without all before it."""


@dataclass(frozen=True)
class Member:
    """A regular file in a tar: its name, and the bytes that it takes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class TarIndex:
    """The members in the order of the file; `num_others` counts links and devices, which are no data."""

    members: tuple[Member, ...]
    num_others: int
    has_end: bool
    """Whether the mark is there that ends a whole tar; a file without it may have been cut."""


def read_index(path: Path) -> TarIndex:
    """Read the headers of a tar.

    Raises:
        UserError: it is compressed, damaged, or ends within a member; names the byte.
    """
    require_file(path)
    members, num_others = [], 0
    try:
        with present(path).open("rb") as file:
            _refuse_compressed(path, file.read(6))
            file.seek(0)
            tar = tarfile.TarFile(fileobj=file, mode="r", errors="surrogateescape")
            while (info := tar.next()) is not None:
                vars(tar)["members"] = []  # which would keep them all
                is_data = info.isreg() and not info.issparse()
                num_others += not is_data and not info.isdir()
                if is_data and not any(map(is_hidden, info.name.split("/")[1:] or [info.name])):
                    members.append(Member(info.name, info.offset_data, info.size))
            # What is no header ends a tar without a word.
            file.seek(tar.offset)
            rest = file.read(BLOCK)
            if any(rest) or 0 < len(rest) < BLOCK:
                raise UserError(f"{path}: damaged or cut: byte {tar.offset} should begin another file, and does not")
    except UserError:
        raise
    except Exception as error:  # tarfile raises whatever numbers and texts in a damaged header lead it to
        raise UserError(f"{path}: not a whole tar file: {type(error).__name__}: {error}") from error
    return TarIndex(tuple(members), num_others, has_end=bool(rest))


def _refuse_compressed(path: Path, start: bytes) -> None:
    for magic, name in COMPRESSED.items():
        if start.startswith(magic):
            raise UserError(
                f"{path}: compressed with {name}, so that its images cannot be read by their places. Images gain "
                "nothing from it; decompress the file"
            )
