"""Sections as a table for people, as Markdown, and as JSON with every figure of every round."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.bus.peers import PEERS, version
from benchmarks.bus.rounds import Spread
from benchmarks.bus.section import Goal, Row, Section

_OURS = (
    "airflow-provider-agentic",
    "apache-airflow",
    "cel-expr-python",
    "psycopg",
    "pydantic",
    "redis",
    "SQLAlchemy",
)


def as_json(section: Section, peers: Sequence[str] = PEERS) -> dict[str, Any]:
    """Return all that is known of a section: what it found, when, and on what machine.

    Args:
        section: What was measured.
        peers: Distributions whose versions count.
    """
    values = asdict(section)
    values["goals"] = [asdict(goal) | {"verdict": goal.verdict} for goal in section.goals]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": _machine(),
        "versions": {name: version(name) for name in (*_OURS, *peers)},
        **values,
    }


def write(
    folder: Path,
    page: Path | None,
    found: dict[str, dict[str, Any]],
    name: str = "bus",
    title: str = "The bus",
) -> None:
    """Write ``<name>.json`` and ``<name>.md``; sections that were not measured now stay as they were.

    Args:
        folder: For the two.
        page: A page of the docs that shows the newest results between two marks with the name.
        found: New sections, by name, as JSON.
        name: Of the benchmark.
        title: What it measures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    known.update(found)
    file.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    text = "\n".join(_markdown(values) for values in known.values())
    (folder / f"{name}.md").write_text(f"# {title}, measured\n\n{text}")
    if page is not None and page.exists():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, _, rest = page.read_text().partition(begin)
        _, _, after = rest.partition(end)
        page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")


def printed(section: Section) -> str:
    """Return a section as a table for a terminal."""
    lines = [
        "",
        section.title,
        f"  {_said(len(section.rounds.counted), len(section.rounds.dropped), section.rounds.wanted)}",
    ]
    if busy := _busy(section.load):
        lines.append(f"  {busy}")
    for group, rows in groupby(section.rows, key=lambda row: row.group):
        lines += ["", f"  {group}"]
        lines += [_line(row) for row in rows]
    if section.skipped:
        lines += ["", "  not measured", *(f"    {name}: {why}" for name, why in section.skipped.items())]
    if section.goals:
        lines += ["", "  goals"]
        lines += [f"    {goal.text:<72} {_goal(goal):>24}   {goal.verdict}" for goal in section.goals]
    return "\n".join(lines)


def _line(row: Row) -> str:
    figure = f"{_figure(row.figure, row.unit):>26} {row.unit:<5}"
    ratio = f"{row.ratio.median:6.2f} ({row.ratio.low:.2f} to {row.ratio.high:.2f})" if row.ratio else ""
    return f"    {row.name:<54} {figure} {ratio:<24} {row.note}".rstrip()


def _goal(goal: Goal) -> str:
    sign = "≥" if goal.at_least else "≤"
    unit = "" if goal.unit == "x" else f" {goal.unit}"
    measured = "" if goal.measured is None else f"{goal.measured:.2f}{unit}"
    return f"{measured} ({sign} {goal.bound:g}{unit})"


def _figure(spread: Spread, unit: str) -> str:
    digits = 0 if unit == "msg/s" or spread.median >= 100 else 2
    return f"{spread.median:,.{digits}f} ({spread.low:,.{digits}f} to {spread.high:,.{digits}f})"


def _said(counted: int, dropped: int, wanted: int) -> str:
    if not counted:
        return f"none of {dropped} rounds counts: the disk changed its pace in each. Try again when it is at rest"
    pace = f"; {dropped} dropped, for the disk changed its pace" if dropped else ""
    few = f"; {wanted} were wanted, so no goal is decided" if counted < wanted else ""
    return f"median of {counted} interleaved rounds, with the lowest and the highest{pace}{few}"


def _busy(load: float) -> str:
    cpus = os.cpu_count() or 1
    return f"The machine was busy with other work: load {load} on {cpus} CPUs" if load > cpus else ""


def _markdown(values: dict[str, Any]) -> str:
    rounds, machine = values["rounds"], values["machine"]
    said = _said(len(rounds["counted"]), len(rounds["dropped"]), rounds["wanted"])
    lines = [f"## {values['title']}", "", f"{values['date'][:10]}, commit {values['commit']}: {said}."]
    lines += [
        f"{machine['cpus']} CPUs ({machine['cpu']}), Python {machine['python']}, SQLite {machine['sqlite']}."
    ]
    if busy := _busy(values["load"]):
        lines.append(f"{busy}.")
    if values["settings"]:
        lines += [
            "Server: " + ", ".join(f"{name} {value}" for name, value in values["settings"].items()) + "."
        ]
    rows = [
        Row(**{**row, "figure": Spread(**row["figure"]), "ratio": row["ratio"] and Spread(**row["ratio"])})
        for row in values["rows"]
    ]
    if rows:
        lines += ["", "| | | | of the first | |", "|---|---|---|---|---|"]
        lines += [_markdown_row(row) for row in rows]
    if values["skipped"]:
        lines += ["", *(f"Not measured: {name}: {why}" for name, why in values["skipped"].items())]
    if values["goals"]:
        lines += ["", "| goal | measured | |", "|---|---|---|"]
        for each in values["goals"]:
            goal = Goal(**{name: value for name, value in each.items() if name != "verdict"})
            lines.append(f"| {goal.text} | {_goal(goal)} | {goal.verdict} |")
    return "\n".join(lines) + "\n"


def _markdown_row(row: Row) -> str:
    ratio = f"{row.ratio.median:.2f} ({row.ratio.low:.2f} to {row.ratio.high:.2f})" if row.ratio else ""
    return f"| {row.group} | {row.name} | {_figure(row.figure, row.unit)} {row.unit} | {ratio} | {row.note} |"


def _machine() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def _cpu() -> str:
    file = Path("/proc/cpuinfo")
    if file.exists():
        for line in file.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else f"unknown to {sys.executable}"
