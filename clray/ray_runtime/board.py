"""Notes and numbers that processes of a Ray cluster share through its head, where they outlive who left them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ray.experimental.internal_kv import _internal_kv_exists, _internal_kv_get, _internal_kv_put

from clray.ray_runtime.following import looked_at

NAMESPACE = "clray"
FOLLOW_SECONDS = 5.0


def leave_note(name: str, text: str) -> None:
    """Leave a note in the place of any before it; a millisecond, in which the head is asked."""
    _internal_kv_put(name, text, overwrite=True, namespace=NAMESPACE)


def read_note(name: str) -> str | None:
    """The newest note of this name, from whatever process; None where there is none."""
    found = _internal_kv_get(name, namespace=NAMESPACE)
    return None if found is None else found.decode()


@contextmanager
def note_followed(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Call `say`, from another thread, with each text that the note of this name gets while the block runs."""
    last = None

    def look() -> None:
        nonlocal last
        text = read_note(name)
        if text is not None and text != last:
            last = text
            say(text)

    with looked_at(look, FOLLOW_SECONDS):
        yield


def draw_number(name: str) -> int:
    """The next number of this name, from 0; no two processes draw the same. A millisecond for each drawn before."""
    number = 0
    while _internal_kv_put(f"{name}/{number}", b"", overwrite=False, namespace=NAMESPACE):
        number += 1
    return number


def count_drawn(name: str) -> int:
    """How many numbers of this name have been drawn."""
    number = 0
    while _internal_kv_exists(f"{name}/{number}", namespace=NAMESPACE):
        number += 1
    return number
