"""Ask for known vulnerabilities of what the package brings along: ``make audit``.

What ``pip install .`` has brought, with the versions of this environment, is looked
up with pip-audit: at PyPI, and at OSV for what PyPI does not know.  Exit code 1 on a
finding; 0 where none is known or no service answers (a line says which); 2 where
pip-audit fails.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

SERVICES = {"pypi": "PyPI (pypi.org)", "osv": "OSV (api.osv.dev)"}
#: What pip-audit's output has where a service gave no answer.
NO_ANSWER = ("ConnectionError", "ServiceError", "Could not connect", "not redirecting", "Timeout", "ProxyError")

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


def ask(service: str, packages: dict[str, str], scratch: Path) -> list[dict[str, Any]] | None:
    """What a service knows of each package; None where it gives no answer."""
    requirements, report = scratch / "requirements.txt", scratch / f"{service}.json"
    requirements.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()))
    command = (sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner=off")
    options = (f"--vulnerability-service={service}", "--timeout=15", "--format=json", f"--output={report}")
    try:
        done = subprocess.run(
            (*command, *options, f"--requirement={requirements}"), capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        return None
    if report.exists() and report.stat().st_size:
        dependencies: list[dict[str, Any]] = json.loads(report.read_text())["dependencies"]
        return dependencies
    if any(word in done.stderr for word in NO_ANSWER):
        return None
    print(f"pip-audit failed:\n{done.stderr[-3000:]}", file=sys.stderr)
    sys.exit(2)


def main() -> int:
    findings = 0
    why: list[str] = []
    with tempfile.TemporaryDirectory(prefix="dsf-audit-") as folder:
        packages = needed(PACKAGE)
        left = dict(packages)
        for service, title in SERVICES.items():
            answer = ask(service, left, Path(folder)) if left else []
            if answer is None:
                why.append(f"{title} cannot be reached")
                continue
            # pip-audit calls a package that the service does not know free of vulnerabilities.
            for known in (each for each in answer if "skip_reason" not in each):
                left = {name: version for name, version in left.items() if name != known["name"]}
                for vulnerability in known["vulns"]:
                    findings += 1
                    fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
                    print(f"{known['name']} {known['version']}: {vulnerability['id']}, fixed in {fixed}")
            if left:
                why.append(f"{title} does not know {'any' if len(left) == len(packages) else 'all'} of them")
    if left:
        print(f"NOT AUDITED: {', '.join(f'{n} {v}' for n, v in sorted(left.items()))}: {'; '.join(why)}.")
    if len(left) < len(packages):
        print(f"{len(packages) - len(left)} of {len(packages)} packages audited, {findings} vulnerabilities known.")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
