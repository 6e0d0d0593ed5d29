"""Listings of durable runs: which are found, in what order, and page by page."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

from airflow_agentic.persistence.ports import RunQuery, RunStatus
from airflow_agentic.testing.conformance.bench import Bench, equal, true
from airflow_agentic.testing.conformance.guards import NAMES
from airflow_agentic.testing.conformance.journals import NOW_MS, append, key
from airflow_agentic.testing.conformance.promises import Capability, Chapter

listings = Chapter()
RUNS = Capability.RUNS
_MINUTE_MS, _MOST_PAGES = 60_000, 50


def listed(bench: Bench, **query: Any) -> list[str]:
    """Return the streams of this bench that a query finds."""
    if query.keys() <= {"statuses", "limit"}:
        query["agent"] = bench.box
    found = bench.runs.runs.heads(RunQuery(**query))
    return [head.stream.removeprefix(f"{bench.box}/") for head in found]


@listings.promise(RUNS)
def runs_are_listed_as_they_are_asked_for(bench: Bench) -> None:
    """Runs are found by name, beginning, agent, status and correlation together; what was written last comes first."""
    minute = 60_000
    about = {
        "a/1": (bench.box, "running", "x", 0), "a/2": (bench.box, "failed", "x", 3 * minute),
        "b/1": (bench.other, "failed", "", 2), "b/2": (bench.other, "waiting", "x", 2), "c": (bench.box, "failed", "y", 2),
        "d": (bench.box, "finished", "", 2 * minute), "A/1": (bench.box, "finished", "", 1),
    }  # fmt: skip
    for stream, (agent, status, of, at) in about.items():
        values = {
            "agent": agent,
            "status": status,
            "correlation": f"{of}-{bench.box}",
            "updated_at_ms": NOW_MS + at,
        }
        append(bench, stream=stream, **values)
    order = sorted(about, key=lambda each: (-about[each][3], each))
    failed, most = (RunStatus.FAILED,), (RunStatus.FAILED, RunStatus.WAITING, RunStatus.FINISHED)
    for names, prefix, who, statuses, talk in product(
        (None, ("a/2", "b/1", "zzz", "d", "b/1"), ()),
        ("", "a/", "b", "a/1"),
        (None, bench.box, bench.third),
        ((), failed, most),
        (None, "x", "z"),
    ):
        if names is None and not prefix and who is None and talk is None:
            continue  # others have runs too
        wanted = [
            each
            for each in order
            if (names is None or each in names)
            and each.startswith(prefix)
            and who in (None, about[each][0])
            and (not statuses or about[each][1] in statuses)
            and talk in (None, about[each][2])
        ]
        query = RunQuery(
            None if names is None else tuple(key(bench, name) for name in names),
            key(bench, prefix) if prefix else "",
            who,
            statuses,
            None if talk is None else f"{talk}-{bench.box}",
            limit=2,
        )
        found = [each.stream for each in bench.runs.runs.heads(query)]
        equal(found, [key(bench, each) for each in wanted[:2]], f"what {query} finds")
    equal(listed(bench, prefix=key(bench, "")), order, "all of them")


@listings.promise(RUNS)
def a_run_moves_in_the_listings_with_each_record(bench: Bench) -> None:
    """A run that was written, or stands otherwise than before, is listed where it belongs now."""
    for stream in ("a", "b", "c"):
        append(bench, stream=stream, updated_at_ms=NOW_MS)
    equal(listed(bench), ["a", "b", "c"], "runs that were written at the same time")
    append(bench, stream="b", updated_at_ms=NOW_MS + 1)
    append(bench, stream="c", updated_at_ms=NOW_MS + 120_000, status="failed")
    equal(listed(bench), ["c", "b", "a"], "runs after two were written")
    equal(listed(bench, limit=2), ["c", "b"], "the first two of them")
    equal(listed(bench, statuses=(RunStatus.RUNNING,)), ["b", "a"], "those that go on")
    equal(listed(bench, statuses=(RunStatus.FAILED,)), ["c"], "those that failed")


@listings.promise(RUNS)
def how_the_name_of_a_run_begins_is_taken_literally(bench: Bench) -> None:
    """Runs are listed by how their names begin; what is a pattern elsewhere is not one here."""
    for name in NAMES:
        append(bench, stream=name, updated_at_ms=NOW_MS)
    for prefix in {
        *NAMES,
        *(name[:1] for name in NAMES),
        "[a",
        "?",
        "[a-z]",
        "e",
        ".*",
        "a*",
        "a\0",
        "\ud800",
    }:
        wanted = sorted((name for name in NAMES if name.startswith(prefix)), key=str.encode)
        equal(listed(bench, prefix=key(bench, prefix)), wanted, f"the runs that begin with {prefix!r}")
    equal(listed(bench, streams=(key(bench, "a\0"), key(bench, "\ud800"))), [], "runs that cannot be")


def _pages(bench: Bench, query: RunQuery) -> list[list[str]]:
    """Return the pages of a listing, each behind the last one of the page before."""
    pages: list[list[str]] = []
    while page := bench.runs.runs.heads(query):
        true(len(pages) < _MOST_PAGES, f"the pages of {query} do not end")
        pages.append([head.stream.removeprefix(f"{bench.box}/") for head in page])
        query = replace(query, after=page[-1].place)
    return pages


@listings.promise(RUNS)
def a_listing_goes_on_where_a_page_ended(bench: Bench) -> None:
    """Page by page each run is listed once, in the same order as at once, however it is asked for."""
    # Some at the same moment: names tell them apart, by their bytes.
    names = ["a", "B", "b", "\u00fc", "\uffee", "\U0001f600", "c/1", "c/2", "c/3", "d"]
    for number, name in enumerate(names):
        at = NOW_MS - number // 4 * _MINUTE_MS + (number % 2 if number > 3 else 0)
        status = "failed" if number % 3 else "finished"
        append(bench, stream=name, updated_at_ms=at, status=status, correlation=f"x-{bench.box}")
    failed = (RunStatus.FAILED,)
    for query in (
        RunQuery(agent=bench.box),
        RunQuery(agent=bench.box, statuses=(*failed, RunStatus.FINISHED)),
        RunQuery(agent=bench.box, statuses=failed),
        RunQuery(prefix=key(bench, "")),
        RunQuery(prefix=key(bench, "c/"), statuses=failed),
        RunQuery(correlation=f"x-{bench.box}"),
        RunQuery(streams=tuple(key(bench, name) for name in names), agent=bench.box),
    ):
        [at_once] = _pages(bench, query)
        for limit in (1, 3):
            pages = _pages(bench, replace(query, limit=limit))
            equal([each for page in pages for each in page], at_once, f"what {query} finds by {limit}")
            true(all(len(page) == limit for page in pages[:-1]), f"a page of {query} is not full")
    everybody = [head.stream for head in bench.runs.runs.heads(RunQuery(limit=10_000))]
    rest = bench.runs.runs.heads(RunQuery(limit=10_000, after=(NOW_MS - 1, key(bench, "\uffff"))))
    ours = [each.stream for each in rest if each.agent == bench.box]
    equal(
        ours,
        [each for each in everybody if each in set(ours)],
        "what is listed behind a place where no run is",
    )
    true(key(bench, "a") not in ours and key(bench, "d") in ours, "the place was not looked at")


@listings.promise(RUNS)
def what_is_written_or_forgotten_between_pages_hides_no_other_run(bench: Bench) -> None:
    """A page goes on where the one before ended, even if the run that it ended with is gone, or elsewhere now."""
    for number in range(6):
        append(bench, stream=str(number), updated_at_ms=NOW_MS - number)
    query = RunQuery(agent=bench.box, limit=2)
    first = bench.runs.runs.heads(query)
    append(bench, stream="0", updated_at_ms=NOW_MS + _MINUTE_MS)
    bench.runs.runs.forget(key(bench, "1"))
    second = bench.runs.runs.heads(replace(query, after=first[-1].place))
    append(bench, stream="3", updated_at_ms=NOW_MS + 2 * _MINUTE_MS)
    third = bench.runs.runs.heads(replace(query, after=second[-1].place))
    found = [[head.stream.removeprefix(f"{bench.box}/") for head in page] for page in (first, second, third)]
    equal(found, [["0", "1"], ["2", "3"], ["4", "5"]], "the pages")
