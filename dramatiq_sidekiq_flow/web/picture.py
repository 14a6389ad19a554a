"""Pictures of parts of a tree: boxes and lines, side by side or one below the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import attrs

#: Size of a box, and of the pill of a delay.
WIDTH, HEIGHT = 200, 48
PILL_WIDTH, PILL_HEIGHT = 96, 28

#: Between two children of a chain, and of a group.
GAP, ROW_GAP = 36, 14

#: Around what is repeated; above it is a label.
FRAME, LABEL = 14, 22


@attrs.frozen
class Box:
    """A box of one or more steps; a pill if it has no state.

    Attributes:
      title: Its first line.
      note: Its second line.
      counts: State -> number of steps, the most urgent one first.
      link: Where it leads; "" for none.
    """

    title: str
    note: str = ""
    counts: Mapping[str, int] = attrs.field(factory=dict)
    ruby: bool = False
    link: str = ""
    x: float = 0
    y: float = 0
    width: float = WIDTH
    height: float = HEIGHT

    @property
    def state(self) -> str:
        """The most urgent state."""
        return next(iter(self.counts), "")

    @property
    def total(self) -> int:
        """Number of steps."""
        return sum(self.counts.values())

    @property
    def share(self) -> float:
        """Share of the steps that are done, from 0 to 1."""
        return self.counts.get("done", 0) / max(1, self.total)

    @property
    def states(self) -> str:
        """The numbers of steps in words."""
        if self.total == 1:
            return self.state
        return ", ".join(f"{count:,} {state}" for state, count in self.counts.items())


@attrs.frozen
class Frame:
    """A frame around what is repeated."""

    label: str
    x: float
    y: float
    width: float
    height: float


@attrs.frozen
class Line:
    """A line from left to right; it ends in an arrow, or in another line."""

    x1: float
    y1: float
    x2: float
    y2: float
    arrow: bool = True

    @property
    def path(self) -> str:
        """The path in SVG: it leaves and arrives horizontally."""
        middle = (self.x1 + self.x2) / 2
        return f"M{self.x1:g} {self.y1:g}C{middle:g} {self.y1:g} {middle:g} {self.y2:g} {self.x2:g} {self.y2:g}"


Point = tuple[float, float]


@attrs.frozen
class Picture:
    """Boxes and lines, from (0, 0).

    Attributes:
      starts, ends: Where lines arrive from the left, and leave to the right; () if nothing is drawn.
    """

    width: float = 0
    height: float = 0
    boxes: tuple[Box, ...] = ()
    lines: tuple[Line, ...] = ()
    frames: tuple[Frame, ...] = ()
    starts: tuple[Point, ...] = ()
    ends: tuple[Point, ...] = ()

    def moved(self, x: float, y: float) -> Picture:
        """The same elsewhere."""
        return attrs.evolve(
            self,
            boxes=tuple(attrs.evolve(box, x=box.x + x, y=box.y + y) for box in self.boxes),
            frames=tuple(attrs.evolve(frame, x=frame.x + x, y=frame.y + y) for frame in self.frames),
            lines=tuple(Line(each.x1 + x, each.y1 + y, each.x2 + x, each.y2 + y, each.arrow) for each in self.lines),
            starts=tuple((px + x, py + y) for px, py in self.starts),
            ends=tuple((px + x, py + y) for px, py in self.ends),
        )


def of_box(box: Box) -> Picture:
    """A picture of one box."""
    middle = box.height / 2
    return Picture(box.width, box.height, (box,), starts=((0, middle),), ends=((box.width, middle),))


def side_by_side(pictures: Iterable[Picture]) -> Picture:
    """The children of a chain, connected."""
    shown = _drawn(pictures)
    if not shown:
        return Picture()
    height = max(each.height for each in shown)
    lefts = _sums((each.width for each in shown), GAP)
    placed = [each.moved(x, (height - each.height) / 2) for each, x in zip(shown, lefts)]
    between = [line for one, two in itertools.pairwise(placed) for line in _connected(one.ends, two.starts)]
    return _together(placed, lefts[-1] - GAP, height, between, placed[0].starts, placed[-1].ends)


def one_below_the_other(pictures: Iterable[Picture]) -> Picture:
    """The members of a group."""
    shown = _drawn(pictures)
    if not shown:
        return Picture()
    width = max(each.width for each in shown)
    tops = _sums((each.height for each in shown), ROW_GAP)
    placed = [each.moved(0, y) for each, y in zip(shown, tops)]
    # Lines from narrow members begin at the edge of the group: they cross no other member.
    starts, inner = _all(each.starts for each in placed), _all(each.ends for each in placed)
    edges = [Line(px, py, width, py, False) for px, py in inner if px < width]
    return _together(placed, width, tops[-1] - ROW_GAP, edges, starts, [(width, py) for _, py in inner])


def _drawn(pictures: Iterable[Picture]) -> list[Picture]:
    """Those in which something is drawn."""
    return [each for each in pictures if each.boxes]


def _sums(lengths: Iterable[float], gap: float) -> list[float]:
    """Where each length begins, and where one more would."""
    return [*itertools.accumulate((length + gap for length in lengths), initial=0)]


def _all(points: Iterable[Sequence[Point]]) -> list[Point]:
    return [point for each in points for point in each]


def framed(picture: Picture, label: str) -> Picture:
    """A picture in a frame with a label."""
    if not picture.boxes:
        return picture
    inner = picture.moved(FRAME, FRAME + LABEL)
    width, height = picture.width + 2 * FRAME, picture.height + 2 * FRAME + LABEL
    edges = [Line(0, py, px, py, False) for px, py in inner.starts]
    edges += [Line(px, py, width, py, False) for px, py in inner.ends]
    starts, ends = [(0.0, py) for _, py in inner.starts], [(width, py) for _, py in inner.ends]
    whole = _together([inner], width, height, edges, starts, ends)
    return attrs.evolve(whole, frames=(Frame(label, 0, 0, width, height), *inner.frames))


def _together(
    placed: Sequence[Picture],
    width: float,
    height: float,
    lines: Iterable[Line],
    starts: Iterable[Point],
    ends: Iterable[Point],
) -> Picture:
    return Picture(
        width,
        height,
        tuple(box for each in placed for box in each.boxes),
        (*(line for each in placed for line in each.lines), *lines),
        tuple(frame for each in placed for frame in each.frames),
        tuple(starts),
        tuple(ends),
    )


def _connected(ends: Sequence[Point], starts: Sequence[Point]) -> list[Line]:
    """Lines from each end to each start; through one point, if there are several of both."""
    if len(ends) == 1 or len(starts) == 1:
        return [Line(*end, *start) for end in ends for start in starts]
    x = max(px for px, _ in ends) + GAP / 2
    y = sum(py for _, py in ends) / len(ends)
    return [*(Line(*end, x, y, False) for end in ends), *(Line(x, y, *start) for start in starts)]
