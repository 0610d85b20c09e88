from pathlib import Path

import numpy as np
import pytest

from clray.clusters.hierarchy import hierarchy_clusters, read_tree
from clray.errors import UserError

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


WORDNET = """  1 This software and database is being provided to you, the LICENSEE, by
00001740 03 n 01 entity 0 002 ~ 00001930 n 0000 ~ 00002137 n 0000 | that which is perceived
00001930 03 n 01 physical_entity 0 001 @ 00001740 n 0000 | an entity that has physical existence
00002137 03 n 0a a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 002 @ 00001740 n 0000 + 00692329 a 0101 | ten words
02117135 05 n 02 hyena 0 hyaena 0 002 @ 00001930 n 0000 @i 00002137 n 0000 | doglike
"""


def test_wordnets_own_file_of_nouns_is_a_tree_over_imagenets_ids(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(WORDNET, encoding="utf-8")
    assert read_tree(tmp_path / "data.noun") == {
        "n00001740": None, "n00001930": "n00001740", "n00002137": "n00001740", "n02117135": "n00001930",
    }  # fmt: skip


@pytest.mark.parametrize("line", ["02117135 05 n", "02117135 05 n zz hyena 0 000", "02117135 05 n 01 hyena 0 002 @ 1"])
def test_a_line_that_is_not_wordnets_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "data.noun").write_text(WORDNET + line, encoding="utf-8")
    with pytest.raises(UserError, match=r"line 6: not a line of WordNet.s data\.noun"):
        read_tree(tmp_path / "data.noun")
