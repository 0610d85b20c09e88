"""Files that hold encoded images, or parts of one, such as a tar, that do."""

from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import get_worker_info

from clray.data.remote.address import address_at
from clray.data.remote.cache import present


@dataclass(frozen=True)
class FilePart:
    """`size` bytes from `offset` on."""

    path: Path
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """The bytes; raises OSError where the file is gone or has become shorter."""
        with there(self.path).open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(f"{self.path} ends before byte {self.offset + self.size}; it was cut since it was read")
        return data


def there(path: Path) -> Path:
    """The file, fetched where it lies far away; raises OSError where only the process that decodes for could fetch it.

    The libraries that fetch do not survive the fork by which a DataLoader starts its processes: the batches of these
    are fetched before they ask.
    """
    if get_worker_info() is None or address_at(path) is None:
        return present(path)
    if not path.exists():
        raise OSError(f"{path} has left the cache before it was read; raise data.cache_limit_gib")
    return path
