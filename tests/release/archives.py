"""An sdist and a wheel without what is of the machine that built them: times, rights, owners."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import time
import zipfile
from pathlib import Path


def normalize(path: Path, epoch: int) -> None:
    """Write an archive anew: each member of the time ``epoch``, with rights 755 or 644, in order of names."""
    path.write_bytes(_wheel(path, epoch) if path.suffix == ".whl" else _sdist(path, epoch))


def _sdist(path: Path, epoch: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(path) as sdist, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in sorted(sdist, key=lambda member: member.name):
            file = sdist.extractfile(member)
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            tar.addfile(member, file)
    return gzip.compress(packed.getvalue(), mtime=epoch)


def _wheel(path: Path, epoch: int) -> bytes:
    packed = io.BytesIO()
    # Of RECORD: it has the hashes of the contents, which stay as they are.
    with zipfile.ZipFile(path) as wheel, zipfile.ZipFile(packed, "w") as zip_:
        for name in sorted(wheel.namelist()):
            info = zipfile.ZipInfo(name, time.gmtime(epoch)[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            executable = (wheel.getinfo(name).external_attr >> 16) & 0o100
            info.external_attr = (0o100755 if executable else 0o100644) << 16
            zip_.writestr(info, wheel.read(name))
    return packed.getvalue()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def members(path: Path) -> dict[str, str]:
    """Member -> all that an archive has of it, as text."""
    found = {}
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            for info in wheel.infolist():
                mode = info.external_attr >> 16
                found[info.filename] = f"{mode:o} {info.date_time} {digest(wheel.read(info))}"
        return found
    with tarfile.open(path) as sdist:
        for member in sdist:
            file = sdist.extractfile(member)
            data = digest(file.read()) if file else ""
            owner = f"{member.uid}:{member.gid} {member.uname}:{member.gname}"
            found[member.name] = f"{member.mode:o} {member.mtime} {owner} {data}"
    return found
