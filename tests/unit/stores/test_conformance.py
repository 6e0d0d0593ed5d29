"""Every store of ours keeps what a store of the bus promises; and a store that does not is found out."""

from __future__ import annotations

import contextlib
import functools
import re
from pathlib import Path

import broken_guards
import broken_journals
import broken_stores
import clocked
import postgres
import pytest
import redis_server

from airflow_agentic.messaging.ports import BusStore
from airflow_agentic.persistence.ports import RunStores
from airflow_agentic.stores.memory import MemoryGuards, MemoryJournals, memory_bus_store, utc_now
from airflow_agentic.testing import FakeClock, assert_store_conforms, conformance
from airflow_agentic.testing.conformance import EVERYTHING, Bench, Capability

IN_ONE_PROCESS = EVERYTHING - {Capability.DURABLE, Capability.SHARED}
CAN = {"memory": IN_ONE_PROCESS}
TRIALS = [(kind, check) for kind in clocked.STORES for check in conformance.checks(CAN.get(kind, EVERYTHING))]


@contextlib.contextmanager
def opened(kind, place, clock):
    """Open the store at a place, also in another process."""
    with getattr(clocked, kind)(place, clock) as store:
        yield store.bus._store


@contextlib.contextmanager
def opened_guards(kind, place, clock):
    """Open the documents of guards that are kept there."""
    with getattr(clocked, kind)(place, clock) as store:
        yield store.guards


@contextlib.contextmanager
def opened_runs(kind, place, clock):
    """Open the durable runs that are kept there."""
    with getattr(clocked, kind)(place, clock) as store:
        yield store.run_stores


def runs_of(bus_store, journals=MemoryJournals, clock=utc_now):
    """Return durable runs whose messages leave through a bus."""
    made = journals(clock, bus_store.messages.append)
    return RunStores(made, made)


@contextlib.contextmanager
def place_for(kind, folder):
    """Make room for one store; yield where it is."""
    if kind == "sqlite":
        yield folder / "agentic.db"
        return
    with {"postgresql": postgres.schema, "redis": redis_server.prefix}[kind]() as name:
        yield name


@pytest.fixture(scope="module")
def trial(request, tmp_path_factory):
    """One store of a kind for all checks, and its clock."""
    clock, kind = FakeClock(), request.param
    if kind == "memory":
        store, guards = memory_bus_store(clock), MemoryGuards(clock)
        runs = runs_of(store, clock=clock)
        yield lambda: store, clock, lambda: guards, lambda: runs
        return
    with place_for(kind, tmp_path_factory.mktemp(kind)) as place:
        open_store, open_guards, open_runs = (
            functools.partial(open_it, kind, place, clock) for open_it in (opened, opened_guards, opened_runs)
        )
        yield open_store, clock, open_guards, open_runs


@pytest.mark.parametrize(
    ("trial", "check"), TRIALS, indirect=["trial"], scope="module", ids=[f"{k}-{c}" for k, c in TRIALS]
)
def test_every_store_keeps_every_promise(trial, check):
    open_store, clock, open_guards, open_runs = trial
    conformance.run(check, Bench(open_store, clock, guards=open_guards, runs=open_runs))


class TestTheSuite:
    def test_every_promise_has_a_name_of_its_own_and_a_sentence(self):
        names = [check.name for check in conformance.CHECKS]
        assert len(set(names)) == len(names)
        assert all(check.promise.endswith(".") and str(check) == check.name for check in conformance.CHECKS)

    def test_every_capability_is_needed_by_some_check_and_most_checks_need_few(self):
        assert frozenset().union(*(check.needs for check in conformance.CHECKS)) == EVERYTHING
        assert max(len(check.needs) for check in conformance.CHECKS) <= 3

    def test_a_store_is_tried_only_by_what_it_says_that_it_can(self):
        least = conformance.checks([])
        assert least
        assert all(not check.needs for check in least)
        assert len(conformance.checks(["dedup"])) > len(least)
        assert tuple(conformance.checks(EVERYTHING)) == conformance.CHECKS

    def test_an_unknown_capability_is_refused(self):
        with pytest.raises(ValueError, match="teleport"):
            conformance.checks(["teleport"])

    def test_a_store_whose_clock_cannot_be_moved_is_tried_in_real_time(self):
        store, guards = memory_bus_store(), MemoryGuards()
        runs = runs_of(store)
        found = assert_store_conforms(lambda: store, IN_ONE_PROCESS, guards=lambda: guards, runs=lambda: runs)
        skipped = {check.name: needs for check, needs in found.skipped}
        assert skipped["a_lease_lasts_as_long_as_it_says"] == {Capability.MOVABLE_CLOCK}
        assert len(found.kept) + len(skipped) == len(conformance.CHECKS)

    def test_a_check_that_moves_the_clock_says_so_where_there_is_none(self):
        [check] = [each for each in conformance.CHECKS if each.name == "a_lease_lasts_as_long_as_it_says"]
        with pytest.raises(ValueError, match="moves the clock of the store: give the bench one"):
            conformance.run(check, Bench(memory_bus_store))

    def test_documents_of_guards_are_tried_where_they_are_given_and_asked_for_where_they_are_not(self):
        store, guards = memory_bus_store(), MemoryGuards()
        without = conformance.verdict(lambda: store, ())
        assert {Capability.GUARDS} in [needs for _, needs in without.skipped]
        with_them = conformance.verdict(lambda: store, (), guards=lambda: contextlib.nullcontext(guards))
        assert len(with_them.kept) - len(without.kept) >= 10
        missing = conformance.verdict(lambda: store, {"guards"})
        assert all("give the bench guards=, or leave the check out" in text for _, text in missing.broken)
        assert len(missing.broken) == len(with_them.kept) - len(without.kept)

    def test_so_are_durable_runs(self):
        store = memory_bus_store()
        runs = runs_of(store)
        without = conformance.verdict(lambda: store, ())
        assert {Capability.RUNS} in [needs for _, needs in without.skipped]
        with_them = conformance.verdict(lambda: store, (), runs=lambda: contextlib.nullcontext(runs))
        assert len(with_them.kept) - len(without.kept) >= 15
        missing = conformance.verdict(lambda: store, {"runs"})
        assert all("give the bench runs=, or leave the check out" in text for _, text in missing.broken)
        assert len(missing.broken) == len(with_them.kept) - len(without.kept)

    def test_what_is_opened_for_a_check_is_closed_after_it(self):
        events = []

        @contextlib.contextmanager
        def once():
            events.append("open")
            yield memory_bus_store()
            events.append("close")

        for check in conformance.checks([])[:2]:
            conformance.run(check, Bench(once))
        assert events == ["open", "close", "open", "close"]


MUTANTS = [
    (broken_stores.NoLeases, "a_leased_delivery_is_given_to_nobody_else"),
    (broken_stores.LeasesForEver, "a_lease_that_ended_gives_the_delivery_to_the_next"),
    (broken_stores.LongerLeases, "a_lease_lasts_as_long_as_it_says"),
    (broken_stores.NoTokens, "a_lost_lease_can_do_nothing"),
    (broken_stores.PeekingTokens, "a_token_that_is_not_its_own_can_do_nothing"),
    (broken_stores.EndlessAttempts, "spent_attempts_end_in_the_dead_letters"),
    (broken_stores.EndlessAttempts, "leases_that_end_spend_the_attempts"),
    (broken_stores.DearReleases, "a_released_delivery_costs_no_attempt"),
    (broken_stores.DearReleases, "a_released_delivery_comes_again_after_its_delay"),
    (broken_stores.ReleasesAtOnce, "a_released_delivery_comes_again_after_its_delay"),
    (broken_stores.ReleasesAtOnce, "a_release_with_a_delay_holds_its_lane"),
    (broken_stores.ReleasesForEver, "a_released_delivery_comes_again_after_its_delay"),
    (broken_stores.OneByOne, "one_stale_lease_stops_the_whole_settlement"),
    (broken_stores.OneByOne, "a_full_mailbox_settles_nothing"),
    (broken_stores.OneByOne, "a_state_conflict_settles_nothing"),
    (broken_stores.SendsFirst, "a_stale_lease_sends_nothing"),
    (broken_stores.NoLanes, "a_lane_is_handed_out_one_at_a_time"),
    (broken_stores.NoLanes, "many_lanes_keep_their_order_whatever_fails"),
    (broken_stores.StuckLanes, "what_ends_in_any_way_lets_the_next_go"),
    (broken_stores.StuckLanes, "a_purge_lets_the_next_go"),
    (broken_stores.LanesBackwards, "a_lane_is_handed_out_one_at_a_time"),
    (broken_stores.RedrivenLanes, "a_redriven_delivery_waits_for_its_lane"),
    (broken_stores.NoPriorities, "higher_priorities_come_first"),
    (broken_stores.NoDelays, "a_delayed_message_comes_when_its_time_has_come"),
    (broken_stores.NoExpiry, "what_has_expired_is_handed_out_to_nobody"),
    (broken_stores.NoDedup, "a_duplicate_is_stored_once"),
    (broken_stores.DedupById, "a_duplicate_is_stored_once"),
    (broken_stores.FirstAddressOnly, "every_mailbox_gets_a_delivery_of_its_own"),
    (broken_stores.DeadAreAlive, "an_address_can_be_dead_at_once"),
    (broken_stores.NoLimits, "a_full_mailbox_refuses_the_whole_batch"),
    (broken_stores.HalfABatch, "a_full_mailbox_refuses_the_whole_batch"),
    (broken_stores.RedriveForgets, "a_redrive_gives_another_chance"),
    (broken_stores.RedriveTakesAll, "a_redrive_takes_the_dead_that_fit"),
    (broken_stores.RedriveAtOnce, "a_redrive_lets_nobody_come_early"),
    (broken_stores.PurgeTakesTheDead, "only_what_is_old_and_done_is_forgotten"),
    (broken_stores.PurgeTakesTheYoung, "what_is_forgotten_is_new_again"),
    (broken_stores.SubscribersPileUp, "the_same_subscription_replaces_the_one_there_is"),
    (broken_stores.EveryHeartbeat, "the_last_heartbeat_counts"),
    (broken_stores.LateReports, "a_late_heartbeat_is_reported_once"),
    (broken_stores.LastWriterWins, "a_value_of_another_version_is_not_changed"),
    (broken_stores.LastWriterWins, "many_threads_lose_no_change"),
    (broken_stores.Racing, "many_threads_claim_each_delivery_once"),
    (broken_stores.Sleeper, "who_waits_is_woken"),
    (broken_stores.NoWorry, "a_rejected_delivery_is_dead_at_once"),
]


GUARD_MUTANTS = [
    (broken_guards.LastWriterWins, "what_is_not_as_expected_is_not_changed"),
    (broken_guards.LastWriterWins, "many_threads_lose_no_count"),
    (broken_guards.FromZero, "a_document_counts_its_versions_from_one"),
    (broken_guards.OneByOne, "documents_change_together_or_not_at_all"),
    (broken_guards.MakesWhatIsMissing, "what_is_not_as_expected_is_not_changed"),
    (broken_guards.OneKind, "only_what_is_there_is_read"),
    (broken_guards.Cut, "names_mean_nothing_to_the_store"),
    (broken_guards.Trimmed, "names_mean_nothing_to_the_store"),
    (broken_guards.Patterns, "how_a_name_begins_is_taken_literally"),
    (broken_guards.SortedAsText, "documents_are_listed_in_order"),
    (broken_guards.LimitFirst, "a_document_is_kept_for_its_time"),
    (broken_guards.KeepsForEver, "a_document_is_kept_for_its_time"),
    (broken_guards.KeepsForEver, "documents_that_are_not_kept_are_forgotten"),
    (broken_guards.TakesAnything, "what_is_too_large_is_refused_whole"),
    (broken_guards.LateTimes, "times_are_those_of_one_clock"),
    (broken_guards.Racing, "of_many_threads_one_changes_a_version"),
    (broken_guards.ReadsOneByOne, "documents_are_read_at_one_time"),
]


RUN_MUTANTS = [
    (broken_journals.LastWriterWins, "what_is_not_expected_is_not_appended"),
    (broken_journals.NoFence, "only_its_owner_appends"),
    (broken_journals.NoFence, "the_run_of_one_who_is_gone_is_taken_over"),
    (broken_journals.HeadFirst, "a_full_mailbox_refuses_the_whole_append"),
    (broken_journals.SendsFirst, "messages_leave_with_the_records_or_not_at_all"),
    (broken_journals.ForgetsToSend, "messages_leave_with_the_records_or_not_at_all"),
    (broken_journals.FromTheStart, "records_are_read_from_any_version"),
    (broken_journals.OnePage, "the_index_has_all_that_has_a_name"),
    (broken_journals.AllNames, "the_index_has_all_that_has_a_name"),
    (broken_journals.AsText, "records_come_back_as_they_were"),
    (broken_journals.NoNul, "records_come_back_as_they_were"),
    (broken_journals.ShortNames, "records_come_back_as_they_were"),
    (broken_journals.AnyCase, "streams_are_told_apart"),
    (broken_journals.OneSnapshot, "a_snapshot_takes_the_place_of_the_one_before"),
    (broken_journals.AllSnapshots, "a_snapshot_takes_the_place_of_the_one_before"),
    (broken_journals.NewestOnly, "a_snapshot_takes_the_place_of_the_one_before"),
    (broken_journals.PrunesToo, "what_is_pruned_is_forgotten_and_the_rest_is_whole"),
    (broken_journals.PrunesToo, "pruning_touches_nothing_else"),
    (broken_journals.LosesTheBase, "what_is_pruned_is_forgotten_and_the_rest_is_whole"),
    (broken_journals.HeadStays, "a_run_can_be_marked"),
    (broken_journals.HalfForgotten, "a_run_can_be_forgotten"),
    (broken_journals.NoLeases, "a_run_belongs_to_one"),
    (broken_journals.NoLeases, "of_many_threads_one_takes_a_run"),
    (broken_journals.LeasesForEver, "a_lease_ends"),
    (broken_journals.AnybodyGivesBack, "a_run_is_given_back_by_its_owner"),
    (broken_journals.NeverGone, "the_run_of_one_who_is_gone_is_taken_over"),
    (broken_journals.SecretOwner, "a_run_belongs_to_one"),
    (broken_journals.Patterns, "how_the_name_of_a_run_begins_is_taken_literally"),
    (broken_journals.LimitFirst, "runs_are_listed_as_they_are_asked_for"),
    (broken_journals.OldestFirst, "runs_are_listed_as_they_are_asked_for"),
    (broken_journals.Sticky, "a_run_moves_in_the_listings_with_each_record"),
    (broken_journals.SamePage, "a_listing_goes_on_where_a_page_ended"),
    (broken_journals.PagesByTime, "a_listing_goes_on_where_a_page_ended"),
    (broken_journals.PagesByLocale, "a_listing_goes_on_where_a_page_ended"),
    (broken_journals.PagesByRun, "what_is_written_or_forgotten_between_pages_hides_no_other_run"),
    (broken_journals.Racing, "of_many_threads_one_appends_a_version"),
    (broken_journals.RacingHolds, "of_many_threads_one_takes_a_run"),
    (broken_journals.HeadLate, "commits_are_read_whole"),
]


def bus_store(messages):
    return BusStore(messages, messages, messages, messages, messages)


class TestThatItHasTeeth:
    @pytest.mark.parametrize(("mutant", "name"), MUTANTS, ids=[f"{m.__name__}-{n}" for m, n in MUTANTS])
    def test_a_store_that_breaks_a_promise_fails_the_check_of_that_name(self, mutant, name):
        clock = FakeClock()
        store = bus_store(mutant(clock))
        [check] = [each for each in conformance.checks(IN_ONE_PROCESS) if each.name == name]
        with pytest.raises(Exception) as caught:  # what a race does is not known
            conformance.run(check, Bench(lambda: store, clock))
        assert isinstance(caught.value, AssertionError) or mutant is broken_stores.Racing, caught.value

    @pytest.mark.parametrize(
        ("mutant", "name"), GUARD_MUTANTS, ids=[f"{m.__name__}-{n}" for m, n in GUARD_MUTANTS]
    )
    def test_so_do_documents_of_guards_that_break_one(self, mutant, name):
        clock = FakeClock()
        guards = mutant(clock)
        [check] = [each for each in conformance.checks(IN_ONE_PROCESS) if each.name == name]
        with pytest.raises(AssertionError):
            conformance.run(check, Bench(memory_bus_store, clock, guards=lambda: guards))

    @pytest.mark.parametrize(
        ("mutant", "name"), RUN_MUTANTS, ids=[f"{m.__name__}-{n}" for m, n in RUN_MUTANTS]
    )
    def test_so_do_durable_runs_that_break_one(self, mutant, name):
        clock = FakeClock()
        store = memory_bus_store(clock)
        runs = runs_of(store, mutant, clock)
        [check] = [each for each in conformance.checks(IN_ONE_PROCESS) if each.name == name]
        with pytest.raises(AssertionError):
            conformance.run(check, Bench(lambda: store, clock, runs=lambda: runs))

    @pytest.mark.parametrize("name", ["of_many_openings_one_appends_a_version", "runs_are_there_later"])
    def test_runs_that_each_opening_has_for_itself_are_neither_shared_nor_durable(self, name):
        [check] = [each for each in conformance.CHECKS if each.name == name]
        with pytest.raises(AssertionError):
            conformance.run(check, Bench(memory_bus_store, runs=lambda: runs_of(memory_bus_store())))

    @pytest.mark.parametrize("name", ["of_many_openings_one_changes_a_version", "documents_are_there_later"])
    def test_documents_that_each_opening_has_for_itself_are_neither_shared_nor_durable(self, name):
        [check] = [each for each in conformance.CHECKS if each.name == name]
        with pytest.raises(AssertionError):
            conformance.run(check, Bench(memory_bus_store, guards=MemoryGuards))

    @pytest.mark.parametrize(
        ("capability", "name"),
        [
            (Capability.DURABLE, "what_was_stored_is_there_later"),
            (Capability.DURABLE, "duplicates_are_known_later"),
            (Capability.SHARED, "two_openings_are_one_store"),
        ],
    )
    def test_a_store_that_forgets_is_not_durable_and_not_shared(self, capability, name):
        clock = FakeClock()
        found = conformance.verdict(
            functools.partial(memory_bus_store, clock), {capability, Capability.DEDUP}, clock
        )
        assert name in [check.name for check, _ in found.broken]

    def test_a_store_whose_processes_each_have_their_own_is_not_shared(self):
        [check] = [each for each in conformance.CHECKS if each.name == "processes_claim_each_delivery_once"]
        with pytest.raises(AssertionError, match="what all of them handled"):
            conformance.run(check, Bench(memory_bus_store))

    def test_one_that_cannot_be_opened_elsewhere_is_told_how_to_be(self):
        [check] = [each for each in conformance.CHECKS if each.name == "processes_claim_each_delivery_once"]

        def open_here():
            return memory_bus_store()

        with pytest.raises(AssertionError, match=r"a function of a module, or functools\.partial of one"):
            conformance.run(check, Bench(open_here))

    def test_every_broken_promise_is_told_and_what_was_skipped_for_want_of_what(self):
        class Broken(broken_stores.DearReleases, broken_stores.NoPriorities):
            def entries(self, scope, limit=100):
                raise ZeroDivisionError("out of luck")

        clock = FakeClock()
        store = bus_store(Broken(clock))
        with pytest.raises(AssertionError) as caught:
            assert_store_conforms(lambda: store, {"priorities", "state", "dedup"}, clock)
        told = str(caught.value)
        assert (
            "BROKEN a_released_delivery_costs_no_attempt: A released delivery can be claimed at once" in told
        )
        assert "the attempt after a release is 2, and must be 1" in told
        assert "BROKEN higher_priorities_come_first" in told
        assert "it raised ZeroDivisionError: out of luck\n    in entries (test_conformance.py:" in told
        assert "a_duplicate_is_stored_once" not in told
        assert "what_was_stored_is_there_later (needs durable)" in told
        assert "processes_claim_each_delivery_once (needs durable, shared)" in told


class TestThePageAboutIt:
    PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "your-own-store.md"

    def test_its_example_runs_and_conforms(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        names = {}
        for block in re.findall(r"^```python\n(.*?)^```", self.PAGE.read_text(), re.MULTILINE | re.DOTALL):
            exec(block, names)
        names["test_my_store_conforms"]()
        names["test_my_guards_conform"]()
        names["test_my_runs_conform"]()
        assert "the store keeps" in capsys.readouterr().out
        for check in conformance.checks(names["CAN"])[:5]:
            names["test_my_store_keeps"](check)

    def test_it_names_every_capability(self):
        told = set(re.findall(r"`([a-z_]+)`", self.PAGE.read_text()))
        assert {str(each) for each in EVERYTHING} - {"movable_clock"} <= told
