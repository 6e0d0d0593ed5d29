"""Runs the checks, and says what came of them."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from airflow_agentic.testing.conformance.bench import Bench, MovableClock, Open, OpenGuards, OpenRuns
from airflow_agentic.testing.conformance.books import books
from airflow_agentic.testing.conformance.guards import guards as guards_chapter
from airflow_agentic.testing.conformance.heads import heads
from airflow_agentic.testing.conformance.journals import journals
from airflow_agentic.testing.conformance.kept import kept
from airflow_agentic.testing.conformance.lanes import lanes
from airflow_agentic.testing.conformance.leases import leases
from airflow_agentic.testing.conformance.listings import listings
from airflow_agentic.testing.conformance.promises import Capability, Check, able
from airflow_agentic.testing.conformance.sending import sending
from airflow_agentic.testing.conformance.settling import settling
from airflow_agentic.testing.conformance.sharing import sharing

CHECKS: tuple[Check, ...] = tuple(
    check
    for chapter in (
        leases,
        settling,
        sending,
        lanes,
        books,
        kept,
        sharing,
        guards_chapter,
        journals,
        heads,
        listings,
    )
    for check in chapter.checks
)
"""Every check there is."""

_MOST_IN_A_TRACE = 3


@dataclass(frozen=True)
class Verdict:
    """What came of the checks.

    Attributes:
        kept: The promises that the store keeps.
        broken: Those that it does not, with what is wrong.
        skipped: Those that need what the store does not say it can.
    """

    kept: tuple[Check, ...]
    broken: tuple[tuple[Check, str], ...]
    skipped: tuple[tuple[Check, frozenset[Capability]], ...]

    def __str__(self) -> str:
        lines = [f"the store keeps {len(self.kept)} of {len(self.kept) + len(self.broken)} promises"]
        lines += [f"\nBROKEN {check.name}: {check.promise}\n    {text}" for check, text in self.broken]
        if self.skipped:
            lines.append("\nnot tried, because the store does not say that it can:")
            lines += [f"    {check.name} (needs {', '.join(sorted(needs))})" for check, needs in self.skipped]
        return "\n".join(lines)


def checks(capabilities: Iterable[Capability | str]) -> list[Check]:
    """Return the checks that a store with these capabilities must pass: for ``pytest.mark.parametrize``.

    Raises:
        ValueError: There is no such capability.
    """
    return able(CHECKS, capabilities)


def run(check: Check, bench: Bench) -> None:
    """Try one promise, and close what was opened for it.

    Raises:
        AssertionError: It is broken; the text says how.
        Exception: Whatever the store raised and no check expects.
    """
    with bench:
        check.on(bench)


def verdict(
    open: Open,  # noqa: A002  # as in Bench
    capabilities: Iterable[Capability | str],
    clock: MovableClock | None = None,
    short: timedelta = timedelta(seconds=0.1),
    guards: OpenGuards | None = None,
    runs: OpenRuns | None = None,
) -> Verdict:
    """Put a store through all checks that it can be put through; see :func:`assert_store_conforms`."""
    has = {Capability(each) for each in capabilities}
    has |= {Capability.MOVABLE_CLOCK} if clock else set()
    has |= {Capability.GUARDS} if guards else set()
    has |= {Capability.RUNS} if runs else set()
    if clock is None:
        has.discard(Capability.MOVABLE_CLOCK)
    passed, broken = [], []
    for check in able(CHECKS, has):
        try:
            run(check, Bench(open, clock, short, guards, runs))
        except AssertionError as error:
            broken.append((check, str(error)))
        except Exception as error:  # noqa: BLE001  # one broken promise hides no other
            broken.append((check, _told(error)))
        else:
            passed.append(check)
    skipped = tuple((check, check.needs - has) for check in CHECKS if not check.needs <= has)
    return Verdict(tuple(passed), tuple(broken), skipped)


def assert_store_conforms(
    open: Open,  # noqa: A002  # as in Bench
    capabilities: Iterable[Capability | str],
    clock: MovableClock | None = None,
    short: timedelta = timedelta(seconds=0.1),
    guards: OpenGuards | None = None,
    runs: OpenRuns | None = None,
) -> Verdict:
    """Put a store through all checks that it can be put through.

    Args:
        open: Opens the store, which must be nobody else's: returns a ``BusStore``, or a context manager that yields
            one. It is called for each check; what is ``durable`` or ``shared`` must be the same store each time. For
            one that is ``shared`` it must be a function of a module, or ``functools.partial`` of one.
        capabilities: What the store says that it can; the other checks are skipped.
        clock: The clock of the store, if it can be moved; that is quicker, and tries the last moments of leases.
        short: Without a clock: a time that is long enough for the store to tell it from none.
        guards: Opens the documents of guards, if the store keeps any: returns a ``GuardStore``, or a context manager
            that yields one. Its clock is the same, if it can be moved.
        runs: Opens the durable runs, if the store keeps any: returns a ``RunStores``, or a context manager that yields
            one. They are on the store that ``open`` opens if that is said to have ``one_commit``.

    Returns:
        The promises that it keeps, and those that were skipped.

    Raises:
        AssertionError: It breaks promises: the text names every one of them, how it is broken, and what was skipped.
    """
    found = verdict(open, capabilities, clock, short, guards, runs)
    if found.broken:
        raise AssertionError(str(found))
    return found


def _told(error: Exception) -> str:
    """Say what the store raised, and where."""
    frames = traceback.extract_tb(error.__traceback__)[-_MOST_IN_A_TRACE:]
    where = " < ".join(
        f"{frame.name} ({frame.filename.rpartition('/')[2]}:{frame.lineno})" for frame in reversed(frames)
    )
    return f"it raised {type(error).__name__}: {error}\n    in {where}"
