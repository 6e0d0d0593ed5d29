from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from airflow_agentic.config.faults import FaultRule
from airflow_agentic.errors import (
    Category,
    ConfigurationError,
    DeadlineExceeded,
    InjectedFault,
    StoreUnavailable,
    WorkCancelled,
)
from airflow_agentic.resilience.deadlines import deadline
from airflow_agentic.resilience.fault_rules import FaultRules
from airflow_agentic.resilience.faults import Faults
from airflow_agentic.resilience.ports import GuardEvent
from airflow_agentic.resilience.shared import LocalGuards

POINT = "agent:triage"


class Clock:
    def __init__(self):
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self):
        return self.now


class Told:
    def __init__(self):
        self.events: list[GuardEvent] = []

    def tell(self, event):
        self.events.append(event)


class Gone(LocalGuards):
    """A store that cannot be reached."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def entries(self, *_args, **_named):
        self.asked += 1
        raise StoreUnavailable("the store is away")

    read = change = entries


def rule(what="error", where=POINT, **said):
    return FaultRule(what=what, where=where, **said)


def faults(store=None, *, events=None, **rules):
    return Faults(store or LocalGuards(), rules, events, refresh_seconds=0)


def struck(made, times, point=POINT):
    """Which of so many attempts fail, from 1."""
    return [number for number in range(1, times + 1) if made.at(point, ("error",))]


class TestWhich:
    def test_without_limits_every_attempt_is_struck(self):
        assert struck(faults(a=rule()), 4) == [1, 2, 3, 4]

    def test_the_first_are_let_alone_and_it_ends_after_so_many(self):
        assert struck(faults(a=rule(after=2, count=3)), 10) == [3, 4, 5]

    def test_the_same_seed_strikes_the_same_attempts_in_another_fleet(self):
        first = struck(faults(a=rule(probability=0.3, seed=7)), 200)
        assert struck(faults(a=rule(probability=0.3, seed=7)), 200) == first
        assert struck(faults(a=rule(probability=0.3, seed=8)), 200) != first
        assert 35 < len(first) < 85

    def test_the_seed_means_the_same_for_every_version_of_python(self):
        # Written down: a drill of last year can be run again.
        assert struck(faults(a=rule(probability=0.3, seed=7)), 20) == [4, 6, 7, 8, 11]

    def test_another_place_is_another_matter(self):
        made = faults(a=rule(where="agent:other", count=1))
        assert struck(made, 3) == []
        assert made.at("agent:other", ("error",))

    def test_what_cannot_happen_now_does_not_count_as_an_attempt(self):
        made = faults(a=rule(count=1))
        assert not made.at(POINT, ("latency", "sigkill"))
        assert made.views()[0].attempts == 0
        assert struck(made, 1) == [1]

    def test_a_window_begins_and_ends_by_the_stores_clock(self):
        clock = Clock()
        store = LocalGuards(clock)
        FaultRules(store).add("a", rule(from_seconds=60, for_seconds=30), actor="me")
        found = []
        for _ in range(12):
            # A worker of its own each time: one that had seen the store's clock would go by that and its own.
            found.append(len(faults(store).at(POINT, ("error",))))
            clock.now += timedelta(seconds=10)
        assert found == [0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0]
        assert FaultRules(store).views()[0].attempts == 3

    def test_the_window_of_a_declared_rule_runs_from_when_work_came_by_first(self):
        clock = Clock()
        store = LocalGuards(clock)
        found = []
        for _ in range(6):
            found.append(len(faults(store, a=rule(from_seconds=15, for_seconds=20)).at(POINT, ("error",))))
            clock.now += timedelta(seconds=10)
        assert found == [0, 0, 1, 1, 0, 0]


class TestFleet:
    def test_rules_of_the_command_line_reach_others_and_end_there(self):
        store = LocalGuards()
        worker, people = faults(store), FaultRules(store)
        assert struck(worker, 1) == []
        people.add("a", rule(), actor="ana")
        assert struck(worker, 2) == [1, 2]
        assert (people.views()[0].injected, people.views()[0].origin) == (2, "ana")
        assert people.clear("a")
        assert not people.clear("a")
        assert struck(worker, 2) == []

    def test_other_rules_of_a_name_begin_anew(self):
        store = LocalGuards()
        worker, people = faults(store), FaultRules(store)
        people.add("a", rule(count=1), actor="ana")
        assert struck(worker, 3) == [1]
        people.add("a", rule(count=2), actor="ana")
        assert struck(worker, 3) == [1, 2]

    def test_the_project_has_the_last_word_on_a_name(self):
        store = LocalGuards()
        FaultRules(store).add("a", rule(where="agent:other"), actor="ana")
        assert struck(faults(store, a=rule(count=1)), 3) == [1]
        with pytest.raises(ConfigurationError, match="the project file declares a fault 'a'"):
            FaultRules(store, {"a": rule()}).add("a", rule(), actor="ana")

    def test_a_declared_rule_that_changed_begins_anew(self):
        store = LocalGuards()
        assert struck(faults(store, a=rule(count=1)), 3) == [1]
        assert struck(faults(store, a=rule(count=1)), 3) == []
        assert struck(faults(store, a=rule(count=2)), 3) == [1, 2]

    def test_threads_together_inject_no_more_than_the_count(self):
        store = LocalGuards()
        crowd = [faults(store, a=rule(count=5)) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda made: len(struck(made, 25)), crowd))
        assert sum(found) == 5

    def test_processes_on_one_store_inject_no_more_than_the_count(self, tmp_path):
        url = f"sqlite:///{tmp_path}/agentic.db"
        code = (
            "import sys\n"
            "from airflow_agentic.config.faults import FaultRule\n"
            "from airflow_agentic.resilience.faults import Faults\n"
            "from airflow_agentic.stores import open_store\n"
            "rule = FaultRule(what='error', where='agent:*', count=7, after=3)\n"
            "with open_store(sys.argv[1]) as store:\n"
            "    made = Faults(store.guards, {'a': rule}, refresh_seconds=0)\n"
            "    print(sum(len(made.at('agent:x', ('error',))) for _ in range(10)))\n"
        )
        from airflow_agentic.stores import open_store

        with open_store(url) as store:
            crowd = [
                subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True)
                for _ in range(3)
            ]
            printed = [int(process.communicate(timeout=60)[0]) for process in crowd]
            [view] = FaultRules(store.guards, {"a": rule(where="agent:*", count=7, after=3)}).views()
        assert sum(printed) == 7
        assert (view.injected, view.is_spent, view.origin) == (7, True, "project")
        assert 10 <= view.attempts <= 30


class TestMarks:
    def test_each_fault_is_in_the_log_and_told_of(self, caplog):
        told = Told()
        made = faults(events=told, a=rule(count=2))
        with caplog.at_level(logging.WARNING):
            struck(made, 5)
        said = [record.getMessage() for record in caplog.records]
        assert said == [
            f"[injected] error at {POINT}, rule 'a', number 1",
            f"[injected] error at {POINT}, rule 'a', number 2",
        ]
        assert [(event.type, event.key) for event in told.events] == [("fault.injected", POINT)] * 2
        assert told.events[1].data == {"rule": "a", "what": "error", "number": 2, "about": ""}

    def test_the_store_keeps_the_last_ones(self):
        made = faults(a=rule())
        made.at(POINT, ("error",), "delivery 4")
        struck(made, 60)
        [view] = made.views()
        assert view.injected == 61
        assert [each["number"] for each in view.last] == list(range(12, 62))

    def test_a_store_that_is_away_makes_no_faults_and_is_said_once(self, caplog):
        gone = Gone()
        made = faults(gone, a=rule())
        with caplog.at_level(logging.WARNING):
            assert struck(made, 20) == []
        assert gone.asked == 1
        [record] = caplog.records
        assert "no faults are injected for 5 s" in record.getMessage()


class TestWork:
    def test_an_error_is_of_the_category_that_the_rule_says(self):
        with pytest.raises(InjectedFault, match=r"\[injected\] error at agent:triage") as caught:
            faults(a=rule(category="resource_exhaustion")).before(POINT)
        assert caught.value.category is Category.RESOURCE_EXHAUSTION
        assert caught.value.rule == "a"

    def test_latency_takes_time_before_the_work(self):
        began = time.monotonic()
        assert faults(a=rule("latency", seconds=0.2)).call(POINT, lambda: 5) == 5
        assert time.monotonic() - began >= 0.2

    def test_latency_ends_with_the_deadline_and_not_before(self):
        began = time.monotonic()
        with deadline(0.2), pytest.raises(DeadlineExceeded):
            faults(a=rule("latency", seconds=30)).before(POINT)
        assert 0.2 <= time.monotonic() - began < 5

    def test_latency_ends_when_the_work_is_told_to_stop(self):
        with deadline() as limit:
            limit.cancel("enough")
            with pytest.raises(WorkCancelled, match="enough"):
                faults(a=rule("latency", seconds=30)).before(POINT)

    def test_what_fails_before_it_begins_is_not_begun(self):
        begun = []
        with pytest.raises(InjectedFault):
            faults(a=rule()).call(POINT, begun.append, 1)
        assert begun == []

    def test_coroutines_suffer_the_same_and_hold_no_loop(self):
        async def work(number):
            return number

        async def both():
            made = faults(a=rule("latency", seconds=0.3, count=2))
            return await asyncio.gather(made.acall(POINT, work, 1), made.acall(POINT, work, 2))

        began = time.monotonic()
        assert asyncio.run(both()) == [1, 2]
        assert 0.3 <= time.monotonic() - began < 0.6
        with pytest.raises(InjectedFault):
            asyncio.run(faults(a=rule()).acall(POINT, work, 1))

    def test_sigkill_ends_the_process_after_the_work_and_is_counted_before(self, tmp_path):
        url, mark = f"sqlite:///{tmp_path}/agentic.db", tmp_path / "done"
        code = (
            "import sys, pathlib\n"
            "from airflow_agentic.config.faults import FaultRule\n"
            "from airflow_agentic.resilience.faults import Faults\n"
            "from airflow_agentic.stores import open_store\n"
            "store = open_store(sys.argv[1])\n"
            "rule = FaultRule(what='sigkill', where='agent:*', count=1)\n"
            "made = Faults(store.guards, {'a': rule})\n"
            "made.call('agent:x', pathlib.Path(sys.argv[2]).touch)\n"
            "store.close()\n"
        )
        from airflow_agentic.stores import open_store

        codes = [
            subprocess.run([sys.executable, "-c", code, url, str(mark)], check=False).returncode for _ in "12"
        ]
        assert codes == [-signal.SIGKILL, 0]
        assert mark.exists()
        with open_store(url) as store:
            [view] = FaultRules(store.guards, {"a": rule("sigkill", "agent:*", count=1)}).views()
        assert view.injected == 1
