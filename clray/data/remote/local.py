"""A config's data as files of this machine: addresses far away become places in the cache."""

import os
import time
from functools import lru_cache
from pathlib import Path

from clray.config.sections import DataConfig
from clray.data.remote.address import Address, address_at
from clray.data.remote.cache import fetch_all, set_bound
from clray.data.remote.systems import LISTING_SECONDS, RemoteFile, files_below, find
from clray.errors import UserError

READS_FROM_AFAR = ("parquet", "csv", "tar", "embeddings")
PATHS = (
    "train_path", "test_path", "validation_path", "labelled_path", "image_root", "attributes_path", "labels_path",
    "test_labels_path", "validation_labels_path", "classes_path",
)  # fmt: skip
"""Keys of the config whose values are files or folders."""


def with_places(config: DataConfig) -> DataConfig:
    """The config with the place in the cache of every address; nothing is fetched.

    Raises:
        UserError: an address that is none, or data that are not read from afar.
    """
    addresses = {key: Address.parse(getattr(config, key) or "") for key in PATHS}
    found = {key: address for key, address in addresses.items() if address is not None}
    if not found:
        return config
    if config.name not in READS_FROM_AFAR:
        key, address = next(iter(found.items()))
        raise UserError(
            f"data.{key}: {address}: data.name={config.name} is read from this machine alone; from afar "
            f"{', '.join(READS_FROM_AFAR)} are"
        )
    root = cache_root(config)
    set_bound(root, int(config.cache_limit_gib * 2**30))
    return config.model_copy(update={key: str(address.place(root)) for key, address in found.items()})


def place_of(path: Path | str) -> Path:
    """The place in the default cache of an address; other paths as they are."""
    address = Address.parse(path)
    return Path(path) if address is None else address.place(cache_root(DataConfig()))


def cache_root(config: DataConfig) -> Path:
    """`data.cache_path`, or the folder that the system has for caches."""
    if config.cache_path is not None:
        return Path(config.cache_path).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().resolve() / "clray"


def remote_file(place: Path) -> RemoteFile | None:
    """What lies at the address of a place in the cache: a file, or None for a folder; raises UserError as `find`."""
    known = address_at(place)
    assert known is not None, f"{place} is no place of the cache"
    return find(known[0])


def places_below(place: Path) -> list[Path]:
    """The places of all files below a folder that is far away."""
    known = address_at(place)
    assert known is not None, f"{place} is no place of the cache"
    return [file.address.place(known[1]) for file in files_below(known[0])]


def far_file(root: Path, name: str) -> Path | None:
    """The place of a file by its path below a folder far away; None where there is none, or it leads out of the folder.

    A web server lists nothing: whether it has the file is found out when it is opened.
    """
    known = address_at(root)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if known is None or not parts or name.startswith("/") or ".." in parts:
        return None
    address, cache = known
    place = Address(address.scheme, "/".join([address.path, *parts])).place(cache)
    return place if address.scheme.startswith("http") or place in _known_places(root, _minute()) else None


@lru_cache(maxsize=4)
def _known_places(root: Path, _time: int) -> frozenset[Path]:
    return frozenset(places_below(root))


def _minute() -> int:
    return int(time.monotonic() // LISTING_SECONDS)


def fetch_places(places: list[Path]) -> None:
    """Fetch those of the places that are in the cache and are not there, as far as they fit."""
    known = [found for place in places if (found := address_at(place)) is not None]
    if not known:
        return
    files = [file for address, _ in known if (file := _listed(address)) is not None]
    fetch_all(known[0][1], files)


def _listed(address: Address) -> RemoteFile | None:
    """By the listing of its folder where the system has one, so that many files cost one question."""
    if not address.scheme.startswith("http"):
        folder = Address(address.scheme, address.path.rpartition("/")[0])
        return next((file for file in files_below(folder) if file.address == address), None) or find(address)
    return find(address)
