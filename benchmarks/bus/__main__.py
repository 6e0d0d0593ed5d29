"""Runs the benchmark: `make bench-bus`, or `python -m benchmarks.bus` for a part of it."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks.bus import backlog, cycles, report, rules, runs
from benchmarks.bus.section import Plan, Section

_ROOT = Path(__file__).parents[2]
_SECTIONS: dict[str, Callable[[Plan], Section]] = {
    "sqlite": cycles.on_sqlite,
    "postgresql": cycles.on_postgresql,
    "redis": cycles.on_redis,
    "keyed": backlog.keyed,
    "depth": backlog.depth,
    "rules": rules.rules,
    "routing": rules.routing,
    "airflow": runs.runs,
}


def main() -> None:
    """Measure what is asked for, print it, and keep it."""
    asked = _arguments()
    names = asked.only or [name for name in _SECTIONS if name != "airflow" or asked.airflow]
    logging.basicConfig(level=logging.ERROR)
    # Servers and databases of the run end with it, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rounds = asked.rounds or (3 if asked.quick else 7)
    found = {}
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="agentic-bench-", dir=asked.folder) as folder:
            plan = Plan(Path(folder), rounds, asked.quick, asked.long, _say)
            section = _measured(name, plan)
        print(report.printed(section), flush=True)
        found[name] = report.as_json(section)
        if not asked.quick:
            report.write(asked.results, _ROOT / "docs" / "benchmarks.md", {name: found[name]})


def _measured(name: str, plan: Plan) -> Section:
    try:
        return _SECTIONS[name](plan)
    except Exception as error:  # noqa: BLE001  # the other sections are worth having
        traceback.print_exc()
        return Section(name, skipped={"everything": f"{type(error).__name__}: {error}".partition("\n")[0]})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bus", description=__doc__)
    parser.add_argument(
        "only", nargs="*", help=f"parts to measure: {', '.join(_SECTIONS)}; default all but airflow"
    )
    parser.add_argument("--quick", action="store_true", help="three rounds of a tenth; nothing is kept")
    parser.add_argument("--long", action="store_true", help="mailboxes with a million messages too")
    parser.add_argument(
        "--airflow", action="store_true", help="boot an Airflow, and measure what starts DAG runs too"
    )
    parser.add_argument("--rounds", type=int, help="how many must count (default 7)")
    parser.add_argument(
        "--folder", type=Path, help="where stores go: on the disk to be measured (default: TMPDIR)"
    )
    parser.add_argument(
        "--results", type=Path, default=_ROOT / "benchmarks" / "results", help="where results go"
    )
    asked = parser.parse_args()
    if unknown := [name for name in asked.only if name not in _SECTIONS]:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(_SECTIONS)}")
    return asked


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
