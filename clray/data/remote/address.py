"""Addresses of data that lie far away, and the place of each in the cache, from which the address can be told again."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

from clray.errors import UserError

SCHEMES = ("s3", "gs", "hf", "https", "http")
ADDRESS = re.compile(rf"({'|'.join(SCHEMES)}):/{{1,2}}(.+)", re.DOTALL)
"""With one slash too: it is what `Path` leaves of two."""
FOLDER = "clray-files"
"""Below the cache's root; what lies in it mirrors addresses."""
PLAIN = "{}*?[]!=,+@ ()~'&$;"
"""Characters that stay as they are in the name of a file, those of patterns among them."""
LONGEST_NAME = 255


@dataclass(frozen=True)
class Address:
    """A file, folder or pattern far away; `path` begins with the bucket or host."""

    scheme: str
    path: str

    @classmethod
    def parse(cls, text: str | Path) -> Self | None:
        """The address that a text is; None for the path of a local file.

        Raises:
            UserError: it holds credentials, or what no file's address has.
        """
        match = ADDRESS.fullmatch(str(text))
        if match is None:
            return None
        scheme, path = match.groups()
        shown = f"{scheme}://{path.rpartition('@')[2]}"
        if "@" in path.partition("/")[0]:
            raise UserError(f"{shown}: leave user and password out of the address; they are taken from the environment")
        if scheme.startswith("http") and ("#" in path or re.search(r"\?.*=", path)):
            raise UserError(
                f"{shown.partition('?')[0]}: give the address of the file alone, without what follows ? or #"
            )
        return cls(scheme, path.rstrip("/"))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def place(self, root: Path) -> Path:
        """Where the cache keeps it; always below the root.

        Raises:
            UserError: a part of the path is too long for the name of a file.
        """
        names = [self.scheme, *map(_as_name, self.path.split("/"))]
        if any(len(name.encode()) > LONGEST_NAME for name in names):
            raise UserError(f"{str(self)[:300]}: a name in it is too long for a file of the cache")
        return root.joinpath(FOLDER, *names)


def address_at(place: Path) -> tuple[Address, Path] | None:
    """The address of a place in the cache, and the cache's root; None for other files."""
    text = str(place)
    if f"/{FOLDER}/" not in text:
        return None
    root, _, rest = text.rpartition(f"/{FOLDER}/")
    scheme, *names = rest.split("/")
    if scheme not in SCHEMES or not names:
        return None
    return Address(scheme, "/".join(map(_from_name, names))), Path(root)


def _as_name(part: str) -> str:
    if part.strip(".") == "":  # nothing, or a way out of the folder
        return "%" + part.replace(".", "%2E")
    # Files that begin with a dot are the cache's own.
    return quote(part, safe=PLAIN) if not part.startswith(".") else "%2E" + quote(part[1:], safe=PLAIN)


def _from_name(name: str) -> str:
    return unquote(name[1:] if name == "%" or name.startswith("%%") else name)
