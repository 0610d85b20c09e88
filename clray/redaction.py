"""Texts without the passwords in them, for everything that is written down or printed.

A text may hold addresses anywhere, and an address need not be well-formed: passwords with `/`, `@`, `#` or spaces in
them stand in messages before anybody has parsed them. Where it cannot be known where a password ends, more is hidden.
"""

import re
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
REACH = 300
"""How far behind its user name a password is looked for, in characters."""

# `user:` or `user@` behind the slashes of an address; what follows the colon is a port where it is digits alone.
USER = re.compile(r"(?<=//)[^\s/@:?#\[\]'\"]*(?:@|:(?!PORT\b|\d{1,5}(?:[/?#\s,;:)\]'\"`]|\.(?:\s|$)|$)))")
# The same without a scheme; `mailto:a@b` and `image:tag@sha256:...` are no passwords.
BARE = re.compile(r"(?<![\w/:@.%+~*-])(?!mailto:|\d+:)[\w.%+~-]+:(?![\s/\\'\"])\S*@(?!sha\d+:)(?=[\w\[])")
ENCODED = re.compile(r"(?i)(%3A%2F%2F)(?:(?!%40|%2F)[^\s&])+%40")
# What Python's own parsers say of a password that they took for a port.
TAKEN_FOR_PORT = re.compile(r"(?i)(nonnumeric port: |cast to integer value as )(['\"]).*?\2(?=[\s,;:.)]|$)")
NAME = re.compile(r"(?<![\w.%-])(?P<name>[\w.%-]{1,80})(?:=|%3D)")
VALUE = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|[^\s&]*[^\s&'\"`)\],;:.]|[^\s&]+")
NAME_IN_TREE = re.compile(
    r"(?P<head>(?P<quote>['\"])(?P<name>[\w.-]{1,80})(?P=quote)\s*:\s*)(?:'[^'\n]*'|\"[^\"\n]*\")"
)
HEADER = re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:(?:bearer|basic|token)\s+)?)[^\s'\"]+")
SECRET_ENDINGS = (
    "password", "passwd", "pwd", "passphrase", "secret", "token", "signature", "credential", "credentials", "apikey",
    "accesskey", "accesskeyid", "secretkey", "accountkey", "privatekey", "sharedkey", "authorization", "jwt",
)  # fmt: skip
SECRET_IN_QUERY = ("key", "sig", "auth", "pass", "pw")
HARMLESS = ("PWD", "OLDPWD")
"""Variables that hold a working folder."""


def hide_credentials(text: str) -> str:
    """`s3://key:secret@bucket?token=x` as `s3://***@bucket?token=***`."""
    text = "\n".join(map(_without_userinfo, text.split("\n")))
    text = BARE.sub(f"{HIDDEN}@", text)
    text = ENCODED.sub(rf"\1{HIDDEN}%40", text)
    text = TAKEN_FOR_PORT.sub(rf"\1\2{HIDDEN}\2", text)
    text = HEADER.sub(rf"\1{HIDDEN}", text)
    text = NAME_IN_TREE.sub(_without_quoted_value, text)
    return _without_options(text)


def show_controls(text: str) -> str:
    """Control characters by their escapes, such as `\\x1b`, but for tab and newline.

    They are those that move the cursor, set colours or turn the direction of writing, and bytes that are no text.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\t\n" else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def hide_in_tree(tree: Any) -> Any:
    """A copy of a plain tree with `hide_credentials` applied to every text in it, and no value of a secret's name."""
    if isinstance(tree, dict):
        return {
            key: HIDDEN if isinstance(value, str) and _is_secret(str(key), in_query=False) else hide_in_tree(value)
            for key, value in tree.items()
        }
    if isinstance(tree, list | tuple):
        return [hide_in_tree(value) for value in tree]
    return hide_credentials(tree) if isinstance(tree, str) else tree


def _without_userinfo(line: str) -> str:
    """A line with what stands between `//` and the `@` of each address hidden."""
    parts, done = [], 0
    for found in USER.finditer(line):
        end = _end_of_userinfo(line, found)
        if found.start() < done or end is None:
            continue
        parts += [line[done : found.start()], f"{HIDDEN}@"]
        done = end
    return "".join(parts) + line[done:]


def _end_of_userinfo(line: str, found: re.Match[str]) -> int | None:
    """Behind the `@` that ends it, or None where there is no such."""
    start = found.end()
    next_address = line.find("://", start)
    reach = line[start : min(start + REACH, len(line) if next_address < 0 else next_address)]
    words = list(re.finditer(r"\S+", reach))
    first = words[0] if words and words[0].start() == 0 else None
    if found[0].endswith("@"):
        authority = re.match(r"[^\s/?#]*", reach)
        return start + (authority[0].rfind("@") + 1 if authority else 0)
    end = 0 if first is None else first[0].rfind("@") + 1
    for word in words:
        if word is first or "@" not in word[0].lstrip("@"):
            continue
        # Behind an `@` only what ends as an address does can still belong to the password.
        if end == 0 or re.search(r"\S@[\w.\[\]-]+(?::\d|/)", word[0]):
            end = word.start() + word[0].rfind("@") + 1
    return start + end if end else None


def _without_quoted_value(found: re.Match[str]) -> str:
    shown = f"{found['quote']}{HIDDEN}{found['quote']}"
    return found["head"] + shown if _is_secret(found["name"], in_query=False) else found[0]


def _without_options(text: str) -> str:
    """`NAME=VALUE` with the value hidden where the name says that it is a secret."""
    parts, done = [], 0
    for found in NAME.finditer(text):
        value = VALUE.match(text, found.end())
        if found.start() < done or value is None:
            continue
        if _is_secret(found["name"], in_query=text[found.start() - 1 : found.start()] in ("?", "&", ";")):
            parts += [text[done : found.end()], HIDDEN]
            done = value.end()
    return "".join(parts) + text[done:]


def _is_secret(name: str, *, in_query: bool) -> bool:
    words = re.sub(r"[^a-z0-9]", " ", unquote(name).lower()).split()
    joined = "".join(words)
    if not words or name in HARMLESS:
        return False
    return joined.endswith(SECRET_ENDINGS) or words[-1] == "sig" or (in_query and joined in SECRET_IN_QUERY)
