"""Explanation of a run: why each of its open steps waits, or cannot move."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import attrs

from ..store import surroundings
from ..store.connection import Connection
from ..wire.nodes import is_ruby_constant
from ..wire.tree_nodes import step_at
from .barriers import barriers_of
from .consumers import Consumers, Surveyor
from .diagnosis import Diagnosis
from .explanation_text import explanation_lines
from .finding import MOST_NUMBERS, Case, Finding, Outlook
from .patient import Patient
from .run_reader import RunReader, View
from .sightings import Sighting
from .snapshot import Run
from .step import Step
from .step_codes import OVER, PENDING, SPARED, UNCAUGHT
from .step_list import StepList, seen_step
from .waiting_steps import waiting_findings

Verdict = Literal["moving", "waiting", "failed", "stuck", "paused", "cancelled", "done"]

#: Jobs whose barriers are looked at, at most.
MOST_BARRIERS = 100

#: The verdict on a run by the best outlook of its steps.
_VERDICTS: Mapping[Outlook, Verdict] = {"moves": "moving", "waits": "waiting", "blocked": "stuck"}


@attrs.frozen(repr=False, str=False)
class Explanation:
    """Why a run stands where it does.

    Attributes:
      run: The run.
      verdict: ``moving``, ``waiting`` (goes on by itself, later), ``failed`` (a step is dead), ``stuck`` (nothing that
        is open goes on without a person, and no step is dead), ``paused``, ``cancelled`` or ``done``.
      findings: What holds up its open steps, those that are blocked first; steps that are alike are one finding.

    ``str(explanation)`` is text of 80 columns.
    """

    run: Run
    verdict: Verdict
    findings: tuple[Finding, ...]

    @property
    def blocked(self) -> tuple[Finding, ...]:
        """The findings about steps that do not go on without a person."""
        return tuple(each for each in self.findings if each.outlook == "blocked")

    def __str__(self) -> str:
        return "\n".join(explanation_lines(self.run, self.verdict, self.findings))

    def __repr__(self) -> str:
        return f"<Explanation of {self.run.id}: {self.verdict}, {len(self.findings)} findings>"


class Explainer:
    """Explains runs.

    Parameters:
      has_barriers: True if the barriers of steps are keys in Redis.
    """

    def __init__(self, connection: Connection, reader: RunReader, surveyor: Surveyor, has_barriers: bool) -> None:
        self.connection = connection
        self.reader = reader
        self.surveyor = surveyor
        self.has_barriers = has_barriers

    def explain(self, run_id: str) -> Explanation:
        """Explain a run.

        Raises:
          UnknownRun: if it has no record.
        """
        return self.of_view(self.reader.view(run_id, thorough=True))

    def of_view(self, view: View) -> Explanation:
        """Explain a run that was read."""
        run = view.run
        if run.state in ("done", "cancelled"):
            return Explanation(run, _rested(run), ())
        consumers = self.surveyor.look()
        cases = self._cases(view, consumers)
        findings = [*_folded(cases), *waiting_findings(run.steps)]
        findings.sort(key=lambda each: _ORDER.index(each.outlook if each.cause != "after_others" else ""))
        return Explanation(run, _verdict(run, findings), tuple(findings))

    def blocked_steps(self, view: View) -> list[Step]:
        """The steps of a run that do not go on without a person, and are to be fixed now."""
        if view.run.state in ("done", "cancelled"):
            return []
        return [step for step, case in self._cases(view, self.surveyor.look()) if _is_to_be_fixed(step, case)]

    def _cases(self, view: View, consumers: Consumers) -> Iterator[tuple[Step, Case]]:
        diagnosis = Diagnosis(consumers, self.reader.is_elsewhere)
        seen = {each.jid: each for each in view.sightings if each.jid}
        gone = self._barriers_gone(view)
        for step in _open_steps(view, seen.values()):
            sighting = seen.get(step.jid)
            patient = Patient(
                run_id=view.run.id,
                run_state=view.run.state,
                step=step,
                seen=sighting if sighting is not None and (sighting.kind or sighting.worker) else None,
                is_ruby=_is_ruby(view, step, consumers),
                barriers_gone=gone.get(step.jid, ()),
            )
            yield step, diagnosis.of(patient)

    def _barriers_gone(self, view: View) -> dict[str, set[str]]:
        """Jid -> the barriers that it needs, and that do not exist; for some of the jobs."""
        if not self.has_barriers:
            return {}
        jobs = list(view.sightings.jobs.items())
        # A dead step stands where it needs a cure.
        jobs.sort(key=lambda job: job[1].place.kind != "dead")
        needed = {jid: barriers_of(job.payload) for jid, job in jobs[:MOST_BARRIERS]}
        gone = surroundings.missing(self.connection, sorted(set().union(*needed.values())))
        return {jid: barriers & gone for jid, barriers in needed.items()}


def _is_to_be_fixed(step: Step, case: Case) -> bool:
    # Without its barrier, a step still runs, and goes to dead then.
    return case.outlook == "blocked" and (step.state == "dead" or case.cause != "barrier_gone")


#: The order of findings: an empty outlook is that of steps whose turn has not come.
_ORDER = ("blocked", "waits", "moves", "")


def _rested(run: Run) -> Verdict:
    return "cancelled" if run.state == "cancelled" else "done"


def _open_steps(view: View, seen: Iterable[Sighting]) -> Iterator[Step]:
    """The steps that are not done, and whose turn has come; also those that are in no tree."""
    steps = view.run.steps
    if isinstance(steps, StepList):
        codes = steps.codes
        # The keeper lets others take the place of what is UNCAUGHT.
        for code in sorted(codes.present() - {*OVER, UNCAUGHT, SPARED, PENDING, 0}):
            yield from map(steps.step, codes.numbers(code))
        yield from (seen_step(each) for each in seen if (each.number or 0) not in codes)
    else:
        yield from (step for step in steps if step.state != "done")


def _is_ruby(view: View, step: Step, consumers: Consumers) -> bool:
    """Return True if Ruby runs a step; without a tree, its name tells."""
    if view.codes is not None and (step.number or 0) in view.codes:
        return step_at(view.codes.tree, view.codes.order.position(step.number or 0)).node.ruby
    return is_ruby_constant(step.name) and step.name not in (consumers.around.classes.get("python") or ())


def _folded(cases: Iterable[tuple[Step, Case]]) -> Iterator[Finding]:
    """Make findings, one for steps that are alike but for their times."""
    alike: dict[tuple[object, ...], list[tuple[Step, Case]]] = {}
    for step, case in cases:
        key = (step.name, step.queue, step.state, case.cause, case.outlook, case.where, case.why, case.cures)
        alike.setdefault(key, []).append((step, case))
    for group in alike.values():
        step, case = group[0]
        yield Finding(
            cause=case.cause,
            outlook=case.outlook,
            state=step.state,
            name=step.name,
            queue=step.queue,
            count=len(group),
            numbers=tuple(each.number for each, _ in group[:MOST_NUMBERS] if each.number),
            where=case.where,
            why=case.why,
            cures=case.cures,
            since=min((each.since for _, each in group if each.since), default=None),
            due=min((each.due for _, each in group if each.due), default=None),
        )


def _verdict(run: Run, findings: Iterable[Finding]) -> Verdict:
    if run.state in ("failed", "paused"):
        return "failed" if run.state == "failed" else "paused"
    outlooks = {each.outlook for each in findings if each.cause != "after_others"}
    for outlook in ("moves", "waits", "blocked"):
        if outlook in outlooks:
            return _VERDICTS[outlook]
    return "stuck" if run.state == "stuck" else "moving"
