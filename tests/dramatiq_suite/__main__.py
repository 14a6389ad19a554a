"""Run the tests of Dramatiq and of dramatiq-workflow, and compare with the list of those that cannot pass.

Fails for a test that fails and is not listed, for one that is listed and
passes, and for a listed one that there is not.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "dramatiq-suite"
CANNOT_PASS = HERE / "cannot-pass.txt"

DRAMATIQ = f"dramatiq=={importlib.metadata.version('dramatiq')}"
DRAMATIQ_WORKFLOW = "dramatiq-workflow==0.3.0"

#: Begins the reason of what is left out.
NOT_RUN = "not run: "

#: Tests of theirs depend on time: one that fails is run again, alone.
ATTEMPTS = 3


def main() -> int:
    listed = read(CANNOT_PASS)
    omitted = {test: reason for test, reason in listed.items() if reason.startswith(NOT_RUN)}
    tests = {test: reason for test, reason in listed.items() if test not in omitted}
    lay_out()
    results = run(targets(omitted), tests)
    for _ in range(ATTEMPTS - 1):
        again = [test for test, outcome in results.items() if outcome == "failed" and test not in tests]
        if not again:
            break
        print(f"Failed, and run again: {', '.join(again)}")
        results.update(run([f"{BUILD}/{test}" for test in again], tests, workers=0))
    return report(results, tests, omitted)


def read(path: Path) -> dict[str, str]:
    """Test, or file -> reason: the lines under a reason in brackets."""
    listed: dict[str, str] = {}
    reason = ""
    for line in path.read_text("utf-8").splitlines():
        line = line.strip()
        if line.startswith("["):
            reason = line.strip("[]")
        elif line and not line.startswith("#"):
            listed[line] = reason
    return listed


def lay_out() -> None:
    """Their tests, and what is here beside them, as packages under BUILD."""
    dramatiq, workflow = unpack(DRAMATIQ), unpack(DRAMATIQ_WORKFLOW)
    for name in ("dramatiq_tests", "dramatiq_workflow"):
        shutil.rmtree(BUILD / name, ignore_errors=True)
    shutil.copytree(dramatiq / "tests", BUILD / "dramatiq_tests")
    shutil.copy(HERE / "common.py", BUILD / "dramatiq_tests" / "common.py")
    (BUILD / "dramatiq_tests" / "__init__.py").touch()
    shutil.copytree(HERE / "dramatiq_workflow", BUILD / "dramatiq_workflow")
    shutil.copytree(workflow / "dramatiq_workflow" / "tests", BUILD / "dramatiq_workflow" / "tests")
    (BUILD / "pytest.ini").write_text("[pytest]\n")


def unpack(requirement: str) -> Path:
    """The folder of a source distribution, downloaded unless it is there."""
    name, _, version = requirement.partition("==")
    for spelled in (name, name.replace("-", "_")):
        folder = BUILD / f"{spelled}-{version}"
        if folder.is_dir():
            return folder
    BUILD.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--no-binary", ":all:", "--dest", str(BUILD), requirement], check=True)
    (archive,) = [path for path in BUILD.glob("*.tar.gz") if path.name.replace("_", "-") == f"{name}-{version}.tar.gz"]
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(BUILD, filter="data")
        else:
            tar.extractall(BUILD)
    archive.unlink()
    return unpack(requirement)


def targets(omitted: dict[str, str]) -> list[str]:
    """All their test files, without those files and tests that are not run."""
    found = [*BUILD.glob("dramatiq_tests/test_*.py"), *BUILD.glob("dramatiq_workflow/tests/test_*.py")]
    names = sorted(str(path.relative_to(BUILD)) for path in found)
    gone = [test for test in omitted if test.partition("::")[0] not in names]
    if gone:
        raise SystemExit(f"There are no such files any more: {', '.join(gone)}. Remove them from {CANNOT_PASS}.")
    without = [f"--deselect={test}" for test in omitted if "::" in test]
    return [*without, *(str(BUILD / name) for name in names if name not in omitted)]


def run(what: list[str], listed: Iterable[str], workers: int = 4) -> dict[str, str]:
    """Test -> ``passed``, ``failed`` or ``skipped``."""
    results = BUILD / "results.xml"
    results.unlink(missing_ok=True)
    pytest = [sys.executable, "-m", "pytest", "-p", "tests.dramatiq_suite.plugin", "-c", str(BUILD / "pytest.ini")]
    options = [f"--rootdir={BUILD}", f"--junit-xml={results}", "--timeout=60", "-q", "-n", str(workers)]
    path = os.pathsep.join((str(ROOT), str(BUILD)))
    environment = {**os.environ, "PYTHONPATH": path, "DRAMATIQ_SUITE_LISTED": " ".join(listed)}
    log = BUILD / "log"
    with log.open("w") as output:
        subprocess.run([*pytest, *options, *what], cwd=ROOT, env=environment, stdout=output, stderr=output)
    if not results.exists():
        raise SystemExit(f"pytest did not run:\n{log.read_text()[-3000:]}")
    found: dict[str, str] = {}
    for case in ElementTree.parse(results).iter("testcase"):
        parts = case.get("classname", "").split(".")
        classes = [part for part in parts if part[:1].isupper()]
        file = "/".join(parts[: len(parts) - len(classes)]) + ".py"
        test = "::".join((file, *classes, case.get("name", "")))
        outcomes = {child.tag for child in case} & {"failure", "error", "skipped"}
        outcome = "passed" if not outcomes else "skipped" if outcomes == {"skipped"} else "failed"
        # A test whose teardown fails, too, is there twice.
        found[test] = "failed" if "failed" in (outcome, found.get(test)) else outcome
    return found


def report(results: dict[str, str], tests: dict[str, str], omitted: dict[str, str]) -> int:
    """Print counts and what is not as it is listed; the exit code."""
    failed = sorted(test for test, outcome in results.items() if outcome == "failed" and test not in tests)
    passed = sorted(test for test in tests if results.get(test) == "passed")
    gone = sorted(test for test in tests if test not in results)
    counts = Counter(results.values())
    print(f"{DRAMATIQ} and {DRAMATIQ_WORKFLOW}: {counts['passed']} passed, {counts['skipped']} skipped")
    for reason, count in Counter(tests.values()).most_common():
        print(f"  {count:3} cannot pass: {reason}")
    for reason, count in Counter(omitted.values()).most_common():
        print(f"  {count:3} {reason}")
    for test in failed:
        print(f"FAILED, not listed: {test}")
    for test in passed:
        print(f"PASSED, but listed: {test}")
    for test in gone:
        print(f"NOT THERE, but listed: {test}")
    if failed or passed or gone:
        print(f"The list is {CANNOT_PASS.relative_to(ROOT)}; what pytest printed is {BUILD.relative_to(ROOT)}/log.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
