"""The files of the incident triage: what came, what was tried again, tickets and reports.

All of it is in one folder, which every worker must see. Each file is written whole or not at all, and whatever is done
twice changes nothing the second time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from incident_causes import shortened
from incident_models import Decision, Failure, Intake, Verdict

_ROOM_FOR_FAILURES, _ROOM_FOR_LOG = 3_000, 6_000
_MORE = "<!-- more failures are added above this line -->"


class IncidentBook:
    """The folder of incidents.

    ``tickets/INCIDENT.md`` is a ticket: it is open as long as its file is there. ``runs/RUN/report.md`` and ``.json`` say what
    one run of the triage did, ``runs/RUN/intake.json`` what came to it. ``seen``, ``retries`` and ``questions`` are for the
    triage alone.

    Args:
        directory: Where; default ``incidents`` in Airflow's home.
    """

    def __init__(self, directory: str | None = None) -> None:
        home = os.environ.get("AIRFLOW_HOME", "~/airflow")
        self.folder = (Path(directory) if directory else Path(home) / "incidents").expanduser().resolve()

    # -- what came -------------------------------------------------------------------------------------

    def claim(self, run: str, intake: Intake) -> Intake:
        """Take what came for one run of the triage, unless another run has it; return all that the run has.

        That is more than what came now, if the run was cleared and began anew.
        """
        file = self._run_folder(run) / "intake.json"
        with self._locked():
            had = self._read(file)
            known = {each["id"] for group in had.values() for each in group}
            for name, items in (("failures", intake.failures), ("set_aside", intake.set_aside)):
                for item in items:
                    if item.id not in known and self._is_ours(run, item.id):
                        had.setdefault(name, []).append(item.model_dump(mode="json"))
            if had:
                _write(file, json.dumps(had, indent=2) + "\n")
        return Intake.model_validate(had)

    def intake(self, run: str) -> Intake:
        """Return all that came to one run of the triage."""
        return Intake.model_validate(self._read(self._run_folder(run) / "intake.json"))

    # -- retries ---------------------------------------------------------------------------------------

    def retries(self, incident: str, failures: Sequence[Failure]) -> int:
        """Say how often a task of an incident was tried again for it: that of the most retries."""
        counted = self._read(self._retries(incident))
        return max((len(counted.get(each.instance, ())) for each in failures), default=0)

    def count_retry(self, incident: str, failure: Failure) -> int:
        """Count that a task is tried again, once for each failure; say how often it was by now."""
        file = self._retries(incident)
        with self._locked():
            counted = self._read(file)
            ids = counted.setdefault(failure.instance, [])
            if failure.id not in ids:
                ids.append(failure.id)
                _write(file, json.dumps(counted, indent=2) + "\n")
        return len(ids)

    # -- questions -------------------------------------------------------------------------------------

    def ask(self, incident: str, asker: str, until: datetime) -> str | None:
        """Say that somebody asks a person about an incident, unless somebody else does; return who that is."""
        with self._locked():
            for file in sorted(self._question(incident, asker).parent.glob("*.json")):
                said = self._read(file)
                if said["asker"] != asker and said["answer"] is None and not _is_over(said):
                    return str(said["asker"])
            own = self._question(incident, asker)
            if not own.exists():
                _write(own, json.dumps({"asker": asker, "until": until.isoformat(), "answer": None}))
        return None

    def tell(self, incident: str, asker: str, answer: dict[str, str]) -> None:
        """Tell those who wait for the answer of somebody else's question."""
        file = self._question(incident, asker)
        with self._locked():
            _write(file, json.dumps({**self._read(file), "answer": answer}))

    def heard(self, incident: str, asker: str) -> tuple[bool, dict[str, str] | None]:
        """Return whether the question of somebody else is over, and the answer, if there is one."""
        said = self._read(self._question(incident, asker))
        answer = said.get("answer")
        return answer is not None or not said or _is_over(said), answer

    # -- tickets ---------------------------------------------------------------------------------------

    def open_ticket(self, incident: str) -> Path | None:
        """Return the ticket of an incident, if one is open."""
        file = self._ticket(incident)
        return file if file.exists() else None

    def write_ticket(self, verdict: Verdict, why: str) -> str:
        """Open a ticket, or add to the open one the failures that are not in it yet; return its file."""
        incident = verdict.incident
        file = self._ticket(incident.id)
        with self._locked():
            text = file.read_text(encoding="utf-8") if file.exists() else _new_ticket(verdict, why)
            rows = [
                _row(failure, incident.links.get(failure.id))
                for failure in incident.failures
                if f"<!-- {failure.id} -->" not in text
            ]
            if rows:
                # A person may have changed the text: then they come at its end.
                before, mark, after = text.rpartition(_MORE)
                added = "\n".join(rows) + "\n"
                _write(file, f"{before}{added}{mark}{after}" if mark else f"{text.rstrip()}\n{added}")
        return str(file)

    # -- reports ---------------------------------------------------------------------------------------

    def write_report(self, run: str, summary: dict[str, Any], markdown: str) -> dict[str, str]:
        """Write the report of one run of the triage; return its files."""
        folder = self._run_folder(run)
        _write(folder / "report.json", json.dumps(summary, indent=2) + "\n")
        _write(folder / "report.md", markdown)
        return {"json": str(folder / "report.json"), "markdown": str(folder / "report.md")}

    # -- inside ----------------------------------------------------------------------------------------

    def _is_ours(self, run: str, name: str) -> bool:
        """Whether nobody had taken a message before, or this run had."""
        file = self.folder / "seen" / name
        if not file.exists():
            _write(file, run)
        return file.read_text(encoding="utf-8") == run

    def _run_folder(self, run: str) -> Path:
        # Two runs never share a folder, whatever is in their names.
        return self.folder / "runs" / f"{_safe(run)}-{_digest(run)[:6]}"

    def _ticket(self, incident: str) -> Path:
        return self.folder / "tickets" / f"{_safe(incident)}.md"

    def _retries(self, incident: str) -> Path:
        return self.folder / "retries" / f"{_safe(incident)}.json"

    def _question(self, incident: str, asker: str) -> Path:
        return self.folder / "questions" / _safe(incident) / f"{_digest(asker)[:20]}.json"

    @staticmethod
    def _read(file: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return found

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time change the folder. The lock of a process that is killed is gone with it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def report_of(run: str, intake: Intake, decisions: Sequence[Decision]) -> dict[str, Any]:
    """Return what one run of the triage did, as plain JSON."""
    decided = [failure.id for decision in decisions for failure in decision.failures]
    came = [failure.id for failure in intake.failures]
    return {
        "run": run,
        "came": len(came) + len(intake.set_aside),
        "adds_up": sorted(decided) == sorted(came),
        "incidents": [decision.model_dump(mode="json") for decision in decisions],
        "set_aside": [each.model_dump(mode="json") for each in intake.set_aside],
    }


def report_text(intake: Intake, decisions: Sequence[Decision], summary: dict[str, Any]) -> str:
    """Return the same for people."""
    counts = f"Messages: {summary['came']}. Incidents: {len(decisions)}. Set aside: {len(intake.set_aside)}."
    lines = ["# Incidents", "", f"Run `{summary['run']}`. {counts}", ""]
    if not summary["adds_up"]:
        lines += ["**It does not add up**: what came, and what was decided, differ. See `intake.json`.", ""]
    lines += ["| incident | kind | tasks | decided | why |", "|---|---|---:|---|---|"]
    for each in decisions:
        choice = (
            f"[{each.choice}](../../tickets/{Path(each.ticket).name})" if each.ticket else str(each.choice)
        )
        kind = f"{each.category} ({each.confidence:.0%})"
        cells = (
            shortened(str(each.raised), 120),
            kind,
            len(each.failures),
            f"{choice} by {each.by}",
            each.why,
        )
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    for each in decisions:
        lines += ["", f"## {shortened(str(each.raised), 120)}", ""]
        lines += [f"- `{failure}`: {each.outcomes[failure.id]}" for failure in each.failures]
    if intake.set_aside:
        lines += [
            "",
            "## Set aside",
            "",
            *(f"- {shortened(each.what, 200)}: {each.why}" for each in intake.set_aside),
        ]
    return "\n".join(lines) + "\n"


def evidence_text(verdict: Verdict) -> str:
    """Return what whoever is asked should see, as Markdown: what failed, with its log, and what the log of the first one says.

    A question has room for so much, and no more: what is left out is counted.
    """
    incident = verdict.incident
    rows = [
        f"- `{failure}`{f' ([log]({link}))' if (link := incident.links.get(failure.id)) else ''}"
        for failure in incident.failures
    ]
    shown = rows[: _fitting(rows, _ROOM_FOR_FAILURES)]
    if rest := len(rows) - len(shown):
        shown.append(f"- and {rest:,} more")
    # The end of a log says what went wrong.
    count = _fitting(incident.lines[::-1], _ROOM_FOR_LOG)
    lines = incident.lines[len(incident.lines) - count :]
    of = f" (the last {count} of {len(incident.lines)} lines)" if count < len(incident.lines) else ""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", "\n".join(lines))), default=0))
    return "\n".join(
        [
            f"It is {verdict.kind}. What failed:",
            "",
            *shown,
            "",
            f"What the log says{of}:",
            "",
            f"{fence}text",
            *(lines or ["(nothing)"]),
            fence,
        ]
    )


def _fitting(lines: Sequence[str], room: int) -> int:
    """Return how many of the first lines fit into so many characters."""
    ends = itertools.accumulate(len(line) + 1 for line in lines)
    return sum(end <= room for end in ends)


def _new_ticket(verdict: Verdict, why: str) -> str:
    incident = verdict.incident
    facts = {
        "incident": f"`{incident.id}`",
        "opened": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "kind": verdict.kind,
        "why a ticket": why,
        **{f"all have the same {name}": f"`{value}`" for name, value in incident.shared.items()},
    }
    lines = [
        f"# {shortened(str(incident.raised), 120)}",
        "",
        "This ticket is open as long as this file is here: move it away when it is done. Failures with the same cause",
        "are added to it.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {_cell(value)} |" for name, value in facts.items()),
        "",
        "## What the log says",
        "",
        *(f"    {line}" for line in incident.lines or ["(nothing)"]),
        "",
        "## What failed",
        "",
    ]
    return "\n".join(lines) + f"\n{_MORE}\n"


def _is_over(question: dict[str, Any]) -> bool:
    return datetime.now(UTC) >= datetime.fromisoformat(question["until"])


def _row(failure: Failure, link: str | None) -> str:
    return f"- `{failure}`{f' ([log]({link}))' if link else ''} <!-- {failure.id} -->"


def _cell(value: object) -> str:
    return shortened(str(value), 500).replace("|", "\\|")


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).lstrip(".")[:150]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name[:50]}")
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    Path(name).chmod(0o644)
    Path(name).replace(file)
