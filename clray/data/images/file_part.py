"""Files that hold encoded images, or parts of one, such as a tar, that do."""

from dataclasses import dataclass
from pathlib import Path

from clray.data.remote.cache import present


@dataclass(frozen=True)
class FilePart:
    """`size` bytes from `offset` on."""

    path: Path
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """The bytes; raises OSError where the file is gone or has become shorter."""
        with present(self.path).open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(f"{self.path} ends before byte {self.offset + self.size}; it was cut since it was read")
        return data
