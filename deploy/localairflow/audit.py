"""What the demo shows of its agents: their mailboxes while they work, and what came out of it."""

from __future__ import annotations

import json
import shlex
import textwrap
import threading
import time
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_agentic.stores import open_store
from localairflow.client import FINISHED
from localairflow.console import step, write
from localairflow.errors import ApiError, WaitTimeoutError
from localairflow.project import environments, named, project_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_agentic.messaging import MailboxStats
    from localairflow.console import Progress
    from localairflow.stack import LocalAirflow

__all__ = ["AUDITOR", "REVIEW_DAG_ID", "summary", "watch_mailboxes"]

AUDITOR = "license-auditor"
REVIEW_DAG_ID = "license_review"
_REVIEWS_S = 60.0
_SHOWN, _NAMED = 5, 12  # review notes, names of a family: the report has them all
_WIDTH = 110


@contextmanager
def watch_mailboxes(stack: LocalAirflow, progress: Progress) -> Iterator[None]:
    """Print a line when the counts of a mailbox have changed, at most one a second for each."""
    ended = threading.Event()

    def watch() -> None:
        seen: dict[str, MailboxStats] = {}
        with open_store(stack.store_url) as store:
            while not ended.wait(1.0):
                for box in store.bus.mailboxes():
                    before = seen.get(box.mailbox)
                    if before is None or (before.done, before.dead, before.open) != (
                        box.done,
                        box.dead,
                        box.open,
                    ):
                        progress.line(f"  mailbox {box.mailbox:<30} {_counts(box)}")
                    seen[box.mailbox] = box

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def summary(stack: LocalAirflow) -> bool:
    """Wait for the DAG that the findings start, and tell what came out of it all.

    Returns:
        Whether distributions were judged and the counts add up.

    Raises:
        WaitTimeoutError: the event-driven DAG did not handle its messages in time.
        OSError: the report cannot be read.
    """
    reports = stack.home.path / "reports"
    report = json.loads((reports / "dependency_audit.json").read_text())
    with step(write, f"\n{report['needs_review']} findings start the DAG {REVIEW_DAG_ID}"):
        notes = _reviews(stack, report["needs_review"])
    write(f"\n{report['installed']} distributions are installed in this environment:\n")
    write(f"  {report['judged']:>5}  judged by {AUDITOR}\n  {report['dead']:>5}  in the dead letters\n")
    write(f"  {report['needs_review']:>5}  for a person to see\n")
    for family, count in report["families"].items():
        write(f"\n  {count:>5}  {family}\n{_names(report['verdicts'], family)}")
    if not report["adds_up"]:
        write("The counts do not add up: see the report.\n")
    severe = list(report["families"])[::-1]
    notes.sort(key=lambda note: (severe.index(note["family"]), note["distribution"].lower()))
    write(_cut([_told(f"{n['distribution']} ({n['family']}): {n['advice']}", n["reason"]) for n in notes]))
    dead, planted = "is in the dead letters:", "was broken on purpose and is in the dead letters:"
    write(_cut([_told(f"{r['subject']} {dead}", r["reason"]) for r in report["dead_records"]]))
    write(_cut([_told(f"{r['subject']} {planted}", r["reason"]) for r in report["planted_records"]]))
    write(_where_to_look(stack, reports / "dependency_audit.md"))
    if not report["judged"]:
        write("\nNothing was judged: this is not what the demo should show.\n")
    return bool(report["adds_up"] and report["judged"])


def _reviews(stack: LocalAirflow, expected: int) -> list[dict[str, Any]]:
    """Wait until every finding is reviewed; return the notes."""
    deadline = time.monotonic() + _REVIEWS_S
    while True:
        runs = [run for run in stack.client.dag_runs(REVIEW_DAG_ID) if _is_done(run, stack.started_at)]
        notes = [note for run in runs for note in _notes(stack, run["dag_run_id"])]
        if len(notes) >= expected:
            return notes
        if time.monotonic() > deadline:
            raise WaitTimeoutError(
                f"{len(notes)} of {expected} findings were reviewed after {_REVIEWS_S:.0f} s"
            )
        time.sleep(0.25)


def _is_done(run: dict[str, Any], since: datetime) -> bool:
    """Whether a run has ended, and began in this demo: a database that was kept has others."""
    return run["state"] in FINISHED and datetime.fromisoformat(run["run_after"]) >= since


def _notes(stack: LocalAirflow, run_id: str) -> list[dict[str, Any]]:
    try:
        notes: list[dict[str, Any]] = stack.client.xcom(REVIEW_DAG_ID, run_id, "review")
    except ApiError:
        return []
    return notes


def _told(title: str, reason: str) -> str:
    lines = textwrap.wrap(reason, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(["", title, *lines, ""])


def _cut(parts: list[str]) -> str:
    more = f"\n... and {len(parts) - _SHOWN} more.\n" if len(parts) > _SHOWN else ""
    return "".join(parts[:_SHOWN]) + more


def _names(verdicts: list[dict[str, Any]], family: str) -> str:
    names = [f"{v['name']} {v['version']}" for v in verdicts if v["family"] == family]
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    text, indent = ", ".join(names[:_NAMED]) + more, " " * 9
    lines = textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return "".join(f"{line}\n" for line in lines)


def _counts(box: MailboxStats) -> str:
    parts = [f"{box.done} done"] if box.done else []
    parts += [f"{box.open} open"] if box.open else []
    parts += [f"{box.dead} dead"] if box.dead else []
    return ", ".join(parts)


def _where_to_look(stack: LocalAirflow, report: Any) -> str:
    return (
        f"\nReport      {report}\n"
        f"Look around . {shlex.quote(str(stack.home.path / 'env.sh'))}\n"
        f"            airflow agentic config explain agents.{AUDITOR}\n"
        "            airflow agentic agents list\n"
        "            airflow agentic messages stats\n"
        "            airflow agentic dead-letters list\n"
        f"Stay        {_make('up', stack.environment)}    (the web UI, and the same DAGs to run again)\n"
        f"{_other(stack)}"
    )


def _other(stack: LocalAirflow) -> str:
    """How to see the same DAGs in another environment."""
    others = [None, *environments(stack.dags_folder)]
    others.remove(stack.environment)
    if not others:
        return ""
    files = named(project_files(stack.dags_folder, others[0]))
    return f"Compare     {_make('demo', others[0])}    (the same DAGs under {files})\n"


def _make(target: str, environment: str | None) -> str:
    return f"make {target} ENVIRONMENT={environment}" if environment else f"make {target}"
