"""The report of a licence audit, as Markdown for people and JSON for programs."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from licenses import Family, Verdict


class DeadRecord(BaseModel, frozen=True):
    """A record that ended in the dead letters."""

    subject: str
    reason: str


class Audit(BaseModel, frozen=True):
    """Everything one run found out.

    Attributes:
        run: Correlation id of the DAG run.
        installed: Distributions found in the environment.
        verdicts: One for each that was judged.
        dead: Those that could not be judged.
        planted: Records that the audit broke on purpose, to show where such go; they count nowhere else.
        repeated: Verdicts that came twice because an auditor was killed at the wrong moment.
    """

    run: str
    installed: int
    verdicts: list[Verdict]
    dead: list[DeadRecord]
    planted: list[DeadRecord]
    repeated: int = 0

    @property
    def judged(self) -> int:
        """Distributions with a verdict."""
        return len(self.verdicts)

    @property
    def adds_up(self) -> bool:
        """Whether every distribution was judged or is dead."""
        return self.installed == self.judged + len(self.dead)


def write_report(audit: Audit, directory: Path) -> dict[str, Any]:
    """Write ``dependency_audit.json`` and ``.md`` into ``directory``, each whole or not at all.

    Returns:
        The summary: counts, families and the paths.
    """
    directory = directory.expanduser().resolve()
    directory.mkdir(parents=True, exist_ok=True)
    families = Counter(verdict.family for verdict in audit.verdicts)
    summary = {
        "run": audit.run,
        "installed": audit.installed,
        "judged": audit.judged,
        "dead": len(audit.dead),
        "adds_up": audit.adds_up,
        "planted": len(audit.planted),
        "repeated": audit.repeated,
        "families": {str(family): families[family] for family in Family},
        "needs_review": sum(verdict.needs_review for verdict in audit.verdicts),
    }
    data = {
        **summary,
        "verdicts": [v.model_dump(mode="json") for v in _sorted(audit.verdicts)],
        "dead_records": [record.model_dump() for record in audit.dead],
        "planted_records": [record.model_dump() for record in audit.planted],
    }
    paths = {"json": directory / "dependency_audit.json", "markdown": directory / "dependency_audit.md"}
    _write(paths["json"], json.dumps(data, indent=2) + "\n")
    _write(paths["markdown"], _markdown(audit, summary))
    return {**summary, "files": {key: str(path) for key, path in paths.items()}}


def _markdown(audit: Audit, summary: dict[str, Any]) -> str:
    lines = [
        "# Licence audit",
        "",
        f"{audit.installed} distributions installed: {audit.judged} judged, {len(audit.dead)} in the dead letters.",
        "",
        "| family | distributions |",
        "|---|---:|",
        *(f"| {family} | {count} |" for family, count in summary["families"].items()),
        "",
        "## For a person to see",
        "",
        "| distribution | family | licence | why |",
        "|---|---|---|---|",
        *(_row(v) for v in _sorted(audit.verdicts) if v.needs_review),
        "",
        "## Not judged",
        "",
        *(f"- {record.subject}: {record.reason}" for record in [*audit.dead, *audit.planted]),
        "",
        "## All",
        "",
        "| distribution | family | licence | why |",
        "|---|---|---|---|",
        *(_row(v) for v in _sorted(audit.verdicts)),
    ]
    return "\n".join(lines) + "\n"


def _row(verdict: Verdict) -> str:
    cells = (f"{verdict.name} {verdict.version}", verdict.family, verdict.spdx or "", verdict.reason)
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _sorted(verdicts: list[Verdict]) -> list[Verdict]:
    return sorted(verdicts, key=lambda verdict: (verdict.name.lower(), verdict.version))


def _write(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).chmod(0o644)
    Path(name).replace(path)
