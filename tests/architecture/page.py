"""The list of files on the page that describes the life of a job."""

from __future__ import annotations

import re
from collections.abc import Iterable

BEGIN = "<!-- The files of the trip: python -m tests.architecture --write -->"
END = "<!-- The end of the trip. -->"


def listed(text: str) -> list[str]:
    """The files of the marked list, in order; empty if the page has none."""
    return re.findall(r"^\d+\. `([^`]+)`", _block(text), re.MULTILINE)


def written(text: str, files: Iterable[str]) -> str:
    """The page with another list."""
    block = "\n".join(f"{number}. `{name}`" for number, name in enumerate(files, 1))
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{rest.partition(END)[2]}"


def named(text: str) -> list[str]:
    """The files of the package that the page names outside its list: ``wire/payload.py`` in backticks."""
    outside = text.replace(_block(text), "")
    return list(dict.fromkeys(re.findall(r"`([\w/-]+\.(?:py|lua|rb))`", outside)))


def _block(text: str) -> str:
    return text.partition(BEGIN)[2].partition(END)[0]
