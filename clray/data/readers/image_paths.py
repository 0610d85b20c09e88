"""Files by the paths that people write: relative or absolute, with backslashes, `%2E`, spaces or accents."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from clray.data.remote.address import address_at
from clray.data.remote.local import far_file


class ImagePaths:
    """Finds files below a root folder; remembers folders, as a list names many files of each."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self._folders: dict[str, str] = {}
        self._is_far = address_at(root) is not None

    def find(self, name: str) -> str | None:
        """The file of a path, with symbolic links followed; None where there is none."""
        for each in _readings(name):
            if self._is_far:
                if (place := far_file(Path(self.root), each)) is not None:
                    return str(place)
                continue
            try:
                file = self._real(os.path.join(self.root, each))  # noqa: PTH118
                if os.path.isfile(file):  # noqa: PTH113
                    return file
            except (OSError, ValueError):  # a name that no file system takes
                continue
        return None

    def is_inside(self, file: str | None) -> bool:
        """Whether there is a file that `find` gave, and it lies below the root."""
        return file is not None and file.startswith(f"{self.root.rstrip('/')}/")

    def leaves_root(self, name: str) -> bool:
        """Whether a path leads out of the root, whether or not there is a file."""
        file = self.find(name) or os.path.normpath(os.path.join(self.root, name.replace("\\", "/")))  # noqa: PTH118
        return file != self.root and not self.is_inside(file)

    def _real(self, file: str) -> str:
        folder, name = os.path.split(file)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        real = f"{self._folders[folder]}/{name}"
        return os.path.realpath(real) if os.path.islink(real) or name in ("", ".", "..") else real  # noqa: PTH114


def _readings(name: str) -> Iterator[str]:
    """As it stands, and then what it may mean."""
    yield name
    plain = name.strip()
    for each in (plain, unquote(plain), plain.replace("\\", "/"), unquote(plain.replace("\\", "/"))):
        if each != name:
            yield each
        for form in ("NFC", "NFD"):  # macOS takes accents apart
            if (normal := unicodedata.normalize(form, each)) != each:
                yield normal
