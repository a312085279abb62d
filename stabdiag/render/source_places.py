"""Where in the user's files a finding is: the class of its module, or the script that was run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import quote

from stabdiag.analysis.culprit import LIBRARY
from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.finding import Finding
from stabdiag.core.run import Run


@dataclass(frozen=True, slots=True)
class SourcePlace:
    """`uri` is relative to the folder in which the run was started, or absolute with its scheme; `line` is
    counted from 1, None where only the file is known."""

    uri: str
    line: int | None = None


def source_place(run: Run, diagnosis: Diagnosis, finding: Finding) -> SourcePlace | None:
    """None where neither the class nor the script is known."""
    sources = [
        incident.culprit.source
        for incident in diagnosis.incidents
        if incident.culprit and diagnosis.findings[incident.root] is finding
    ]
    sources += [source for site in finding.sites[:1] for source in _around(run, site)]
    for source in sources:
        path, _, line = source.rpartition(":")
        if path and line.isdigit() and not LIBRARY.search(source):
            return SourcePlace(_uri(run, path), max(int(line), 1))
    return script_place(run)


def script_place(run: Run) -> SourcePlace | None:
    """The script that the command of the run names; None where it names none."""
    script = next((word for word in run.info.command if word.endswith(".py")), "")
    return SourcePlace(_uri(run, script)) if script else None


def _around(run: Run, site: str) -> list[str]:
    """Sources of the classes of a site, of its module, and of those around it, outwards."""
    known = {s.name: s.source for kind in run.kinds for s in run.sites(kind) if s.source}
    names, name = [site], site.partition("[")[0]
    while name:
        names.append(name)
        name = name.rpartition(".")[0]
    return [known[name] for name in names if name in known]


def _uri(run: Run, path: str) -> str:
    """Percent-encoded, whatever a path is made of. Within the run's folder it is relative to that."""
    base = Path(run.info.cwd or Path.cwd())
    whole = Path(_collapsed(base / path))
    if whole.is_relative_to(base):
        return quote(_printed(whole.relative_to(base)))
    return "file://" + quote(_printed(whole))


def _collapsed(path: Path) -> PurePath:
    """Without `..`: a path of parts that may not exist here."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts = parts[:-1] if len(parts) > 1 else parts
        else:
            parts.append(part)
    return PurePath(*parts)


def _printed(path: PurePath) -> bytes:
    """The bytes of a file name, as far as it could be one."""
    try:
        return path.as_posix().encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return path.as_posix().encode("utf-8", "replace")
