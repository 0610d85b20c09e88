"""Clusters from a tree over the classes: the ancestor of each sample's node at a level.

The tree is a nested YAML mapping, lines `parent child`, as ImageNet distributes WordNet's is_a relation, or WordNet's
own file of nouns, which comes with NLTK (corpora/wordnet/data.noun) and with most systems.
"""

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Int

from clray.clusters.assignment import ClusterAssignment
from clray.errors import UserError


def read_tree(path: Path) -> dict[str, str | None]:
    """The parent of each node, None for a root.

    A node with several parents, as WordNet has them, keeps the one nearest to a root, among equals the first.

    Raises:
        UserError: a file that is missing or no tree: a cycle, no root, or a node named twice.
    """
    if not path.is_file():
        raise UserError(f"clusters.tree: {path}: no such file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"clusters.tree: {path} is not text in UTF-8: {error}") from error
    if path.suffix in (".yaml", ".yml"):
        parents = _from_yaml(path, text)
    else:
        parents = _from_wordnet(path, text) if path.name == "data.noun" else _from_pairs(path, text)
    if not parents:
        raise UserError(f"clusters.tree: {path} is empty")
    return _nearest_to_root(path, parents)


def hierarchy_clusters(
    codes: Int[np.ndarray, " n"], names: tuple[str, ...], parents: dict[str, str | None], level: int
) -> ClusterAssignment:
    """One cluster per node at `level`: that of the sample's node or of its ancestor there.

    Args:
        codes: which of `names` each sample's node is.
        level: steps below a root, whose level is 0; a node that lies above `level` stands for itself.

    Raises:
        UserError: a node that is not in the tree, or a level below which there is nothing.
    """
    missing = [name for name in names if name not in parents]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise UserError(f"clusters.tree: no node {shown}; the tree must hold every class as it is named in the data")
    paths = [_path(name, parents) for name in names]
    deepest = max(len(path) - 1 for path in paths)
    if not 0 <= level <= deepest:
        raise UserError(f"clusters.level must be between 0 and {deepest} (the depth of the tree); got {level}")
    ancestors = [path[min(level, len(path) - 1)] for path in paths]
    _, of_name = np.unique(ancestors, return_inverse=True)
    distinct, ids = np.unique(of_name[codes], return_inverse=True)
    return ClusterAssignment(ids, len(distinct), "hierarchy")


def _path(name: str, parents: dict[str, str | None]) -> list[str]:
    """From the root to the node."""
    path = [name]
    while (parent := parents[path[-1]]) is not None:
        path.append(parent)
    return path[::-1]


def _from_yaml(path: Path, text: str) -> dict[str, list[str]]:
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"clusters.tree: {path} is not YAML: {error}") from error
    parents: dict[str, list[str]] = {}

    def visit(node: Any, parent: str | None) -> None:
        if isinstance(node, dict):
            items = list(node.items())
        elif isinstance(node, list):
            items = [(each, None) for each in node]
        else:
            items = [] if node is None else [(node, None)]
        for name, below in items:
            if isinstance(name, dict):
                visit(name, parent)
                continue
            if str(name) in parents:
                raise UserError(f"clusters.tree: {path} names {name!r} twice")
            parents[str(name)] = [] if parent is None else [parent]
            visit(below, str(name))

    visit(tree, None)
    return parents


def _from_pairs(path: Path, text: str) -> dict[str, list[str]]:
    parents: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise UserError(f"clusters.tree: {path}, line {number}: expected `parent child`; got {line.strip()!r}")
        parents.setdefault(words[0], [])
        parents.setdefault(words[1], []).append(words[0])
    return parents


def _from_wordnet(path: Path, text: str) -> dict[str, list[str]]:
    """Nouns by their WordNet ids (`n` and the offset), with the hypernyms that the pointers @ and @i name.

    Format: wndb(5WN). A line holds offset, file, type, word count (hexadecimal), words with their numbers, pointer
    count, and pointers of four fields; the licence stands in lines that begin with spaces.
    """
    parents: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(" ") or not line:
            continue
        fields = line.split()
        try:
            at = 4 + 2 * int(fields[3], 16)
            pointers = [fields[start : start + 4] for start in range(at + 1, at + 1 + 4 * int(fields[at]), 4)]
            above = [f"n{offset}" for symbol, offset, kind, _ in pointers if symbol in ("@", "@i") and kind == "n"]
        except (ValueError, IndexError):
            raise UserError(f"clusters.tree: {path}, line {number}: not a line of WordNet's data.noun") from None
        parents[f"n{fields[0]}"] = above
    return parents


def _nearest_to_root(path: Path, parents: dict[str, list[str]]) -> dict[str, str | None]:
    children: dict[str, list[str]] = {}
    for child, above in parents.items():
        for parent in above:
            children.setdefault(parent, []).append(child)
    chosen: dict[str, str | None] = {name: None for name, above in parents.items() if not above}
    queue = deque(chosen)
    while queue:
        parent = queue.popleft()
        for child in children.get(parent, []):
            if child not in chosen:
                chosen[child] = parent
                queue.append(child)
    unreached = [name for name in parents if name not in chosen]
    if unreached:
        raise UserError(
            f"clusters.tree: {path} has a cycle that holds {unreached[0]!r}; every node must lead to a root"
        )
    return chosen
