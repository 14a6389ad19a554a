"""Rows of texts as aligned lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
from rich.text import Text

GAP = 2
#: A column that gives room to others keeps as many characters.
LEAST = 8


@attrs.frozen
class Column:
    """A column.

    Attributes:
      right: Align at the right.
      flexible: Shorten it, if the lines would be too long.
    """

    title: str
    right: bool = False
    flexible: bool = False


def lines(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> Iterator[Text]:
    """Yield a line of titles, and one for each row; no line ends with blanks."""
    titles = [Text(column.title, "bold") for column in columns]
    widths = _widths(columns, [titles, *rows], width)
    for row in (titles, *rows):
        yield _line(columns, row, widths)


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> list[int]:
    """The width of each column; flexible ones shrink, from the last."""
    widths = [max(text.cell_len for text in cells) for cells in zip(*rows)]
    excess = sum(widths) + GAP * (len(widths) - 1) - width
    for place in reversed(range(len(columns))):
        if excess > 0 and columns[place].flexible:
            less = min(excess, max(0, widths[place] - LEAST))
            widths[place] -= less
            excess -= less
    return widths


def _line(columns: Sequence[Column], row: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text()
    for column, text, width in zip(columns, row, widths):
        cell = text.copy()
        cell.truncate(width, overflow="ellipsis")
        blank = " " * (width - cell.cell_len)
        line.append_text(Text.assemble(blank, cell) if column.right else Text.assemble(cell, blank))
        line.append(" " * GAP)
    line.rstrip()
    return line
