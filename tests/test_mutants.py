"""The list of mutants holds for the code as it is; `scripts/mutate.py` runs them."""

import importlib.util
import sys
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutate", REPOSITORY / "scripts" / "mutate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutate"] = module
    spec.loader.exec_module(module)
    return module


mutate = _load()


@pytest.mark.parametrize("mutant", mutate.MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_finds_its_line_and_its_tests(mutant: "mutate.Mutant") -> None:
    text = (REPOSITORY / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.text) == 1
    assert mutant.replacement != mutant.text
    compile(text.replace(mutant.text, mutant.replacement), mutant.file, "exec")
    for test in mutant.tests:
        path, _, name = test.partition("::")
        where = REPOSITORY / path
        assert where.exists()
        assert name.partition("[")[0] in where.read_text(encoding="utf-8")


def test_there_are_enough_mutants_and_no_name_twice() -> None:
    names = [mutant.name for mutant in mutate.MUTANTS]
    assert len(names) == len(set(names)) >= 15
