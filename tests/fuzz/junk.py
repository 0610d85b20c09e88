"""Random values, texts and damaged bytes, each drawn from a seeded generator."""

import datetime
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

SCALARS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 50, 2**31, 2**32, 2**63, -(2**63), 10**30, 10**400, 0.0, -0.0, 0.5, 1.0, 1.5,
    1e-300, 1e308, -1e308, 5e-324, float("nan"), float("inf"), -float("inf"), "", " ", "a", "1", "1e5", "1e-3", "007",
    "yes", "null", "nan", "~", "\0", "\ud800", "é✓", "\u202e", "x" * 5000, "a\nb", "a=b", "[/b]", "$HOME", "../..",
    "/dev/null", "http://u:p@h/x", "s3://k:s@b?token=x", "module:function", "kmeans", "labels", "digits", "csv",
)  # fmt: skip
OBJECTS: tuple[Any, ...] = (
    b"bytes", datetime.date(2026, 1, 31), np.int64(3), np.float32(0.5), np.bool_(True), np.arange(3), np.array(2.0),
    Path("/nowhere"), {1, 2}, object, (1, 2), 1j, Ellipsis, range(3),
)  # fmt: skip
ALPHABET = "abcxyz019 .,:;-_=+*&!%@#|>[]{}()'\"\\/?~<^$\t\n\r\0é✓\ufeff\u2028"


def value(random: Random, depth: int = 0, *, objects: bool = True) -> Any:
    """Anything that a config might be given from Python."""
    roll = random.random()
    if depth < 3 and roll < 0.12:
        return [value(random, depth + 1, objects=objects) for _ in range(random.randrange(4))]
    if depth < 3 and roll < 0.24:
        return {key(random, objects): value(random, depth + 1, objects=objects) for _ in range(random.randrange(4))}
    if roll < 0.26:
        return nested(random.randrange(40, 3000))
    if objects and roll < 0.32:
        return random.choice(OBJECTS)
    return random.choice(SCALARS)


def nested(depth: int) -> list[Any]:
    result: list[Any] = []
    for _ in range(depth):
        result = [result]
    return result


def as_json(tree: Any) -> bytes:
    """As JSON, or where Python would not nest it so deep, brackets without end."""
    try:
        return json.dumps(tree).encode()
    except (RecursionError, ValueError):
        return b"[" * 5000


def key(random: Random, objects: bool = True) -> Any:
    if objects and random.random() < 0.1:
        return random.choice((None, 1, 0.5, True, (1, 2), "\ud800"))
    return random.choice(("name", "source", "grid_search", "uniform", "a", "", "a.b", "\0", "extends"))


def text(random: Random, longest: int = 60) -> str:
    return "".join(random.choices(ALPHABET, k=random.randrange(longest)))


def damaged_text(random: Random, original: str) -> str:
    """A text with some of its characters and lines lost, doubled, moved or replaced."""
    result = original
    for _ in range(random.choice((0, 1, 1, 2, 3, 8))):
        at = random.randrange(len(result) + 1)
        end = min(len(result), at + random.choice((0, 1, 1, 3, 10)))
        lines = result.split("\n")
        line = random.randrange(len(lines))
        how = random.randrange(6)
        if how == 0:
            result = result[:at] + result[end:]
        elif how == 1:
            result = result[:at] + random.choice(ALPHABET) + result[end:]
        elif how == 2:
            result = result[:at] + text(random, 8) + result[at:]
        elif how == 3:
            result = "\n".join([*lines[:line], lines[line], *lines[line:]])
        elif how == 4:
            result = "\n".join([*lines[:line], " " * random.randrange(4) + lines[line].lstrip(), *lines[line + 1 :]])
        else:
            result = result[:at]
    return result


def damaged_bytes(random: Random, original: bytes) -> bytes:
    """Bytes cut short, flipped, replaced, or with others put in."""
    result = bytearray(original)
    for _ in range(random.choice((0, 1, 1, 1, 2, 4))):
        at = random.randrange(len(result) + 1)
        how = random.randrange(5)
        if how == 0:
            del result[at:]
        elif how == 1 and at < len(result):
            result[at] ^= 1 << random.randrange(8)
        elif how == 2 and at < len(result):
            result[at] = random.randrange(256)
        elif how == 3:
            result[at:at] = random.randbytes(random.randrange(9))
        else:
            del result[at : at + random.randrange(64)]
    return bytes(result)
