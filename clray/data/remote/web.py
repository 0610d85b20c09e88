"""A web server as a file system: single files, of which their size must be told; it lists none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import requests
from pyarrow import fs

from clray.errors import UserError

SECONDS = (10, 60)
"""To connect, and between two answers."""
AS_IT_IS = {"Accept-Encoding": "identity"}


@dataclass(frozen=True)
class WebFileInfo:
    """As pyarrow's `FileInfo`."""

    type: Any
    size: int | None
    mtime_ns: str | None
    """What the server says of the file's version."""


class WebSystem:
    """What is asked of pyarrow's file systems."""

    def get_file_info(self, url: Any) -> WebFileInfo:
        """Of one file; raises UserError for a folder, or where the server does not tell its size."""
        if not isinstance(url, str):
            raise UserError(
                f"{url.base_dir}: a web server lists no files; name each, or many at once as train-{{000..009}}.parquet"
            )
        with requests.head(url, timeout=SECONDS, allow_redirects=True, headers=AS_IT_IS) as answer:
            if answer.status_code in (404, 410):
                return WebFileInfo(fs.FileType.NotFound, None, None)
            answer.raise_for_status()
            size, headers = answer.headers.get("Content-Length"), answer.headers
        if size is None or not size.isdigit():
            raise UserError(f"{url}: the server does not tell how large the file is")
        return WebFileInfo(fs.FileType.File, int(size), headers.get("ETag") or headers.get("Last-Modified"))

    @contextmanager
    def open_input_stream(self, url: str) -> Iterator[BinaryIO]:
        """Its bytes."""
        with requests.get(url, timeout=SECONDS, stream=True, headers=AS_IT_IS) as answer:
            answer.raise_for_status()
            yield cast(BinaryIO, answer.raw)
