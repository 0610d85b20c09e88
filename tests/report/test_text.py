import pytest
from hypothesis import given
from hypothesis import strategies as st

from clray.report.text import as_html, shortened, visible


@given(st.text())
def test_nothing_that_a_terminal_or_a_browser_obeys_is_left(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert not set("\x1b\x9b\n\r\x00\u202e\u2066") & set(shown)
    shown.encode("utf-8")
    assert not set("<>") & set(as_html(text))


@pytest.mark.parametrize("text", ["k=50 t=0.1", "ähre 猫 שלום", ""])
def test_what_people_write_stays(text: str) -> None:
    assert visible(text) == text


def test_a_lone_half_of_a_letter_can_be_written() -> None:
    assert visible("\ud800").encode() == b"\\ud800"


def test_a_long_name_keeps_both_ends() -> None:
    short = shortened("a" * 300 + " k=7")
    assert len(short) <= 60
    assert short.startswith("aaa")
    assert short.endswith("k=7")
