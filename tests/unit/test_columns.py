"""Aligned lines on a terminal of any width."""

from __future__ import annotations

import pytest
from rich.text import Text

from dramatiq_sidekiq_flow.cli.columns import Column, lines

COLUMNS = (Column("NAME", flexible=True), Column("N", right=True), Column("NOTE", flexible=True))
ROWS = (("extract_documents", "1", "the first"), ("load", "1,000", ""))


def shown(width: int) -> list[str]:
    return [line.plain for line in lines(COLUMNS, [[*map(Text, row)] for row in ROWS], width)]


def test_columns_are_as_wide_as_their_contents() -> None:
    assert shown(100_000) == [
        "NAME                   N  NOTE",
        "extract_documents      1  the first",
        "load               1,000",
    ]


def test_the_last_flexible_column_shrinks_first() -> None:
    assert shown(34)[1] == "extract_documents      1  the fir…"
    assert shown(30)[1] == "extract_docu…      1  the fir…"


@pytest.mark.parametrize("width", range(25, 40))
def test_lines_fit(width: int) -> None:
    assert max(map(len, shown(width))) <= width


def test_what_must_be_whole_stays_whole() -> None:
    assert shown(1)[2] == "load      1,000"


def test_numbers_are_not_shortened() -> None:
    rows = [[Text("load"), Text("1,000,000,000"), Text("")]]
    assert [line.plain for line in lines(COLUMNS, rows, 10)][1] == "load  1,000,000,000"


def test_wide_characters_are_aligned() -> None:
    rows = [[Text("抽出"), Text("1"), Text("")], [Text("ab"), Text("2"), Text("x")]]
    assert [line.plain for line in lines(COLUMNS, rows, 80)] == ["NAME  N  NOTE", "抽出  1", "ab    2  x"]
