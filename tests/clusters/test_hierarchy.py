from pathlib import Path

import numpy as np
import pytest

from clray.clusters.hierarchy import hierarchy_clusters, read_tree
from clray.config import UserError

TREE = """
vehicle:
  road: [car, truck]
  craft: [plane]
animal:
  bird:
  mammal:
    pet: [cat, 7]
"""
CLASSES = ("7", "bird", "car", "cat", "plane", "truck")


def write(folder: Path, text: str, name: str = "tree.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_level_gathers_what_has_the_same_ancestor_there(tmp_path: Path) -> None:
    parents = read_tree(write(tmp_path, TREE))
    codes = np.array([2, 5, 4, 1, 3, 0, 2])
    expected = {
        0: [["car", "truck", "plane"], ["bird", "cat", "7"]],
        1: [["car", "truck"], ["plane"], ["bird"], ["cat", "7"]],
        2: [["car"], ["truck"], ["plane"], ["bird"], ["cat", "7"]],
        3: [["car"], ["truck"], ["plane"], ["bird"], ["cat"], ["7"]],
    }
    for level, groups in expected.items():
        assignment = hierarchy_clusters(codes, CLASSES, parents, level)
        assert assignment.num_clusters == len(groups)
        for i, j in np.ndindex(7, 7):
            together = any(CLASSES[codes[i]] in group and CLASSES[codes[j]] in group for group in groups)
            assert (assignment.ids[i] == assignment.ids[j]) == together


def test_pairs_as_wordnet_has_them_keep_the_parent_nearest_to_the_root(tmp_path: Path) -> None:
    pairs = "n1 n2\nn2 n3\nn3 n4\nn1 n4\n\n# a comment\n"
    assert read_tree(write(tmp_path, pairs, "is_a.txt")) == {"n1": None, "n2": "n1", "n3": "n2", "n4": "n1"}


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("a b\nb c\nc b\nb b\nd d\n", "t.txt", "has a cycle that holds 'd'"),
        ("a b\nb a\n", "t.txt", "has a cycle that holds 'a'"),
        ("a b c\n", "t.txt", "line 1: expected `parent child`; got 'a b c'"),
        ("{a: [b], c: [b]}", "t.yaml", "names 'b' twice"),
        ("{a: [b", "t.yaml", "is not YAML"),
        ("", "t.yaml", "is empty"),
    ],
)
def test_what_is_no_tree_is_refused(tmp_path: Path, text: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_tree(write(tmp_path, text, name))


def test_missing_nodes_files_and_levels_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_tree(tmp_path / "none.yaml")
    parents = read_tree(write(tmp_path, TREE))
    with pytest.raises(UserError, match="no node ship, tank"):
        hierarchy_clusters(np.array([0, 1]), ("ship", "tank"), parents, 1)
    with pytest.raises(UserError, match=r"clusters\.level must be between 0 and 3 \(the depth of the tree\); got 4"):
        hierarchy_clusters(np.zeros(1, np.int64), CLASSES, parents, 4)
