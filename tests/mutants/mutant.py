"""A mutant: one line of the package replaced, and the tests of which one must fail."""

from __future__ import annotations

from pathlib import Path

import attrs

PACKAGE = "dramatiq_sidekiq_flow"


class LineGone(Exception):
    """The code that a mutant changes is not in its file, or is there more than once."""


@attrs.frozen
class Mutant:
    """One change that breaks a guarantee.

    Attributes:
      name: Of the mutant; unique.
      why: What is removed, and what would go wrong without it.
      file: Below the package, with slashes.
      old: The text that is replaced; it must be in the file exactly once.
      new: What stands there instead; nothing unless given.
      tests: Node ids of pytest below ``tests/``, the likely killers first.
    """

    name: str
    why: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, source: str) -> str:
        """The file's text with the change.

        Raises:
          LineGone: if the old text is not there exactly once.
        """
        count = source.count(self.old)
        if count != 1:
            raise LineGone(
                f"{self.name}: the text below is {count} times in {PACKAGE}/{self.file}, not once. "
                f"Mend the mutant, or drop it with the line:\n{self.old}"
            )
        return source.replace(self.old, self.new)


def path_of(mutant: Mutant, root: Path) -> Path:
    """The file that a mutant changes, in a copy of the tree."""
    return root / PACKAGE / mutant.file


def in_file(file: str, *tests: str) -> Maker:
    """A maker of mutants of one file; these tests are tried after a mutant's own."""
    return Maker(file, tests)


@attrs.frozen
class Maker:
    """Makes the mutants of one file."""

    file: str
    tests: tuple[str, ...] = ()

    def __call__(self, name: str, why: str, old: str, new: str, *tests: str) -> Mutant:
        return Mutant(name, why, self.file, old, new, (*tests, *self.tests))
