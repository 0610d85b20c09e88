"""Functions and classes in place of their names."""

import numpy as np
import pytest

from clray.config.objects import read_with_objects, require_modules
from clray.errors import UserError
from clray.user_code import import_named


def own_clusters(*, labels: np.ndarray, **_: object) -> np.ndarray:
    return labels // 2


@pytest.mark.parametrize("as_override", [False, True])
def test_a_function_stands_for_its_name_and_is_allowed(as_override: bool) -> None:
    overrides = {"clusters.source": own_clusters} if as_override else None
    config = read_with_objects({} if as_override else {"clusters": {"source": own_clusters}}, overrides)
    assert config.allow_user_modules
    assert import_named(config.clusters.source, "clusters.source") is own_clusters


def test_without_a_function_nothing_is_allowed() -> None:
    assert not read_with_objects({"clusters": {"source": "labels"}}).allow_user_modules


@pytest.mark.parametrize("value", [lambda **_: 0, print.__call__, own_clusters.__get__(1)])
def test_what_has_no_name_to_import_it_by_is_refused(value: object) -> None:
    with pytest.raises(UserError, match=r"clusters\.source: expected a function or class that can be imported"):
        read_with_objects({}, {"clusters.source": value})


def test_what_a_notebook_defines_is_refused_where_other_processes_need_it() -> None:
    config = read_with_objects({}, {"clusters.source": "__main__:own", "allow_user_modules": True})
    with pytest.raises(UserError, match=r"clusters\.source=__main__:own: other processes cannot import"):
        require_modules(config)
