import numpy as np
import pandas as pd

from clray.config.sections import DataConfig
from clray.data.attributes import encode_attributes


def test_a_column_of_lists_becomes_an_attribute_for_each_value() -> None:
    columns = {"tag": pd.Series([["red", "long"], ["long"], [], None])}
    found = encode_attributes(columns, DataConfig())
    assert {name: codes.tolist() for name, (codes, _) in found.items()} == {
        "tag=long": [1, 1, 0, 2], "tag=red": [1, 0, 0, 2],
    }  # fmt: skip


def test_text_is_split_only_where_a_separator_is_named() -> None:
    columns = {"tag": pd.Series(["red; long", "long"])}
    assert list(encode_attributes(columns, DataConfig())) == ["tag"]
    split = encode_attributes(columns, DataConfig(list_separator=";"))
    assert {name: codes.tolist() for name, (codes, _) in split.items()} == {"tag=long": [1, 1], "tag=red": [1, 0]}


def test_fractions_are_cut_into_bins_of_equal_frequency() -> None:
    values = pd.Series(np.random.default_rng(0).lognormal(size=1000))
    ((codes, names),) = encode_attributes({"price": values}, DataConfig(num_bins=5)).values()
    assert np.bincount(codes).tolist() == [200] * 5
    assert len(names) == 5
    order = np.argsort(values)
    assert (np.diff(codes[order]) >= 0).all()


def test_whole_numbers_and_few_fractions_stay_what_they_are() -> None:
    columns = {
        "count": pd.Series(np.arange(100)),
        "share": pd.Series([0.5, 0.25] * 50),
        "id": pd.Series([1.0, None, 3.0]),
    }
    found = encode_attributes(columns, DataConfig())
    assert [len(names) for _, names in found.values()] == [100, 2, 3]


def test_missing_and_infinite_values_share_a_code_of_their_own() -> None:
    values = pd.Series([*np.linspace(0.1, 0.9, 50), np.nan, np.inf])
    ((codes, names),) = encode_attributes({"x": values}, DataConfig()).values()
    assert codes[-2:].tolist() == [4, 4]
    assert names[-1] == "nan"
