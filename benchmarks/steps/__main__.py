"""Runs the benchmark: `make bench-steps`, or `python -m benchmarks.steps` for a part of it."""

from __future__ import annotations

import argparse
import functools
import logging
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks.bus import report
from benchmarks.bus.section import Plan, Section
from benchmarks.steps import cost, growth, resume
from benchmarks.steps.contender import LARGE, SETTLED, SMALL
from benchmarks.steps.peers import PEERS

_ROOT = Path(__file__).parents[2]
_SECTIONS: dict[str, Callable[[Plan], Section]] = {
    "sqlite": functools.partial(cost.on_sqlite, size=SMALL),
    "sqlite-settled": functools.partial(cost.on_sqlite, size=SETTLED),
    "sqlite-large": functools.partial(cost.on_sqlite, size=LARGE),
    "modes": cost.in_modes,
    "postgresql": functools.partial(cost.on_postgresql, size=SMALL),
    "postgresql-large": functools.partial(cost.on_postgresql, size=LARGE),
    "growth": growth.growth,
    "resume": resume.resume,
}


def main() -> None:
    """Measure what is asked for, print it, and keep it."""
    asked = _arguments()
    logging.basicConfig(level=logging.CRITICAL)
    # Databases of the run end with it, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rounds = asked.rounds or (3 if asked.quick else 11)
    for name in asked.only or _SECTIONS:
        print(f"{name} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="agentic-bench-", dir=asked.folder) as folder:
            section = _measured(name, Plan(Path(folder), rounds, asked.quick, long=False, say=_say))
        print(report.printed(section), flush=True)
        if not asked.quick:
            found = {name: report.as_json(section, PEERS)}
            report.write(
                asked.results, _ROOT / "docs" / "benchmarks.md", found, name="steps", title="Durable steps"
            )


def _measured(name: str, plan: Plan) -> Section:
    try:
        return _SECTIONS[name](plan)
    except Exception as error:  # noqa: BLE001  # the other sections are worth having
        traceback.print_exc()
        return Section(name, skipped={"everything": f"{type(error).__name__}: {error}".partition("\n")[0]})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=__doc__)
    parser.add_argument("only", nargs="*", help=f"parts to measure: {', '.join(_SECTIONS)}; default all")
    parser.add_argument("--quick", action="store_true", help="three rounds of a tenth; nothing is kept")
    parser.add_argument("--rounds", type=int, help="how many must count (default 11)")
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
