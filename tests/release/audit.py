"""Ask for known vulnerabilities of what the package needs to run: ``make audit``.

What is asked for is what ``pip install .`` has brought, with the versions of this
environment.  Exit code 1 where something is known.  Where the service cannot be
reached, a line says so, and the exit code is 0: nothing was looked at.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution

PACKAGE = "dramatiq-sidekiq-flow"


def needed(package: str) -> dict[str, str]:
    """Name -> version of all that a package needs, without its extras."""
    found: dict[str, str] = {}
    open_ = [package]
    while open_:
        for line in distribution(open_.pop()).requires or []:
            requirement, _, marker = line.partition(";")
            match = re.match(r"[\w.-]+", requirement)
            if match is None or "extra" in marker or match[0] in found:
                continue
            try:
                found[match[0]] = distribution(match[0]).version
            except PackageNotFoundError:
                continue  # for another Python or system
            open_.append(match[0])
    return found


def main() -> int:
    packages = needed(PACKAGE)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{name}=={version}\n" for name, version in sorted(packages.items())))
        file.flush()
        command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format", "json"]
        command += ["--progress-spinner", "off", "--timeout", "10", "--requirement", file.name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    listed = ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
    try:
        report = json.loads(done.stdout)
    except ValueError:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        print(f"NOT AUDITED: the service of pip-audit gave no answer ({reason[:300]}). It would be asked for {listed}.")
        return 0
    known = [(entry, found) for entry in report["dependencies"] for found in entry.get("vulns", ())]
    for entry, found in known:
        fixed = ", ".join(found["fix_versions"]) or "no version"
        print(f"{entry['name']} {entry['version']}: {found['id']}, mended in {fixed}")
    if not known:
        print(f"Nothing is known of {listed}.")
    return int(bool(known))


if __name__ == "__main__":
    sys.exit(main())
