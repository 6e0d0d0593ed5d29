from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from guard_parts import BREAKER, DOWN, KEY, fail, kept, made, warm

from airflow_agentic.errors import (
    BudgetExceeded,
    BulkheadFull,
    CircuitOpen,
    ConfigurationError,
    DeadlineExceeded,
    LimitExceeded,
    RejectMessage,
    ServiceError,
    WorkCancelled,
)
from airflow_agentic.resilience import (
    Attempt,
    Breaker,
    BreakerState,
    Budget,
    Bulkhead,
    Policy,
    RateLimit,
    Retry,
    Subject,
    breaker,
    deadline,
    remaining,
    shared,
    spend,
)
from airflow_agentic.resilience.ports import KEEP, GuardKey

# -- breaker -------------------------------------------------------------------------------------------


def test_a_dead_service_is_called_as_often_as_is_needed_to_know_it(guards, service, notes):
    guard = guards.guard(Policy(breaker=BREAKER), KEY)
    assert fail(guard, service) == 4
    assert notes.types() == ["breaker.opened"]
    with pytest.raises(CircuitOpen, match="'conn:primary' is open: 4 of 4 calls failed") as raised:
        guard.call(service)
    assert 0 < (raised.value.retry_at - datetime.now(UTC)).total_seconds() <= 0.2
    assert raised.value.key == KEY


def test_it_closes_again_when_the_probes_go_well(guards, service, notes):
    guard = guards.guard(Policy(breaker=BREAKER), KEY)
    fail(guard, service)
    service.error = None
    time.sleep(0.21)
    warm(guard, service, 5)
    assert guards.breaker(KEY).state is BreakerState.CLOSED
    assert notes.types() == ["breaker.opened", "breaker.half_opened", "breaker.closed"]


def test_what_the_service_refuses_is_a_sign_of_life(guards, service):
    guard = guards.guard(Policy(breaker=BREAKER), KEY)
    service.error = RejectMessage("no")
    for _ in range(20):
        with pytest.raises(RejectMessage):
            guard.call(service)
    assert guards.breaker(KEY).view().tally.failed == 0


def test_of_what_is_well_nobody_is_asked(guards, service, store):
    guard = guards.guard(Policy(breaker=BREAKER), KEY)
    warm(guard, service)
    before = store.trips
    began = time.monotonic()
    warm(guard, service, 200)
    assert store.trips - before <= 2 * (2 + time.monotonic() - began)


def test_good_results_are_told_soon_without_another_call(store, service):
    guards = made(store, staleness_seconds=0.1)
    guard = guards.guard(Policy(breaker=Breaker(window="time", window_size=60, minimum_calls=4)), KEY)
    warm(guard, service, 4)
    known = guards.breaker(KEY).view().tally.calls
    warm(guard, service, 50)
    time.sleep(0.5)
    assert guards.breaker(KEY).view().tally.calls == known + 50


def test_good_results_are_told_when_the_store_is_closed(store, service):
    guards = made(store, staleness_seconds=60)
    guard = guards.guard(Policy(breaker=Breaker(window="time", window_size=60, minimum_calls=4)), KEY)
    warm(guard, service, 104)
    guards.close()
    assert guards.breaker(KEY).view().tally.calls == 104


def test_a_guard_that_is_made_for_each_call_forgets_no_good_result(guards, service):
    # One in four fails: less than half.
    policy = Policy(breaker=BREAKER)
    for number in range(400):
        service.error = DOWN if number % 4 == 3 else None
        try:
            guards.guard(policy, KEY).call(service)
        except ServiceError:
            continue
    assert service.calls == 400


def test_a_second_process_hears_of_it_in_time(store, service):
    mine, other = made(store, staleness_seconds=0.2), made(store, staleness_seconds=0.2)
    policy = Policy(breaker=Breaker(window_size=10, minimum_calls=4, open_seconds=60))
    well = other.guard(policy, KEY)
    warm(well, service)
    fail(mine.guard(policy, KEY), service, 30)
    time.sleep(0.21)
    service.error = None
    with pytest.raises(CircuitOpen):
        well.call(service)


def test_the_first_calls_wait_for_each_other_and_none_of_them_is_refused(guards, service):
    guard = guards.guard(Policy(breaker=BREAKER), KEY)
    service.door.clear()
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(guard.call(service)), daemon=True) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert service.inside == 4
    service.door.set()
    for thread in threads:
        thread.join(20)
    assert len(answers) == 12


def test_breakers_are_looked_at_and_set_by_hand(guards, service, notes):
    guard = guards.guard(Policy(breaker=BREAKER), KEY)
    handle = guards.breaker(KEY)
    assert handle.state is BreakerState.CLOSED
    assert handle.view().since is None
    view = handle.trip(reason="they move", actor="ann", lasts=timedelta(seconds=0.2))
    assert (view.state, view.actor, view.reason) == (BreakerState.FORCED_OPEN, "ann", "they move")
    with pytest.raises(CircuitOpen, match="ann: they move"):
        guard.call(service)
    time.sleep(0.21)
    assert guard.call(service) == "answer"
    handle.trip(reason="again", actor="ann")
    handle.reset(reason="done", actor="bob")
    assert guard.call(service) == "answer"
    handle.force_closed(reason="must go on", actor="ann")
    assert fail(guard, service, 20) == 20
    assert [view.key for view in guards.breakers("conn:")] == [KEY]
    assert {"breaker.forced_open", "breaker.forced_closed"} <= set(notes.types())


@pytest.mark.parametrize("wrong", [{"reason": " ", "actor": "a"}, {"reason": "r", "actor": ""}])
def test_who_sets_one_by_hand_says_who_and_why(guards, wrong):
    with pytest.raises(ConfigurationError, match="reason= and actor="):
        guards.breaker(KEY).trip(**wrong)
    with pytest.raises(ConfigurationError, match="above zero"):
        guards.breaker(KEY).trip(reason="r", actor="a", lasts=timedelta(0))
    with pytest.raises(ConfigurationError, match="at most 3650 days"):
        guards.breaker(KEY).trip(reason="r", actor="a", lasts=timedelta.max)


def test_a_breaker_that_a_newer_version_wrote_can_be_looked_at(guards):
    at = GuardKey("breaker", KEY)

    def newer(docs, now):
        doc = breaker.fresh()
        return shared.Decision(None, {at: {**doc, "settings": {**doc["settings"], "from_the_future": 1}}})

    guards.shared.insist([at], newer)
    assert guards.breaker(KEY).view().settings["from_the_future"] == 1


# -- the guards together -------------------------------------------------------------------------------


def held(guards):
    """What is held or taken in the store, by kind."""
    found, now = {}, time.time()
    for kind in ("breaker", "limit", "bulkhead", "budget"):
        for name, doc, _ in guards.shared.listed(kind):
            leases = {
                "breaker": lambda doc: sum(until > now for until in doc["out"].values()),
                "limit": lambda doc: int(bool(doc)),
                "bulkhead": lambda doc: len(doc["slots"]),
                "budget": lambda doc: len(doc["held"]),
            }[kind](doc)
            found[kind] = found.get(kind, 0) + leases
            assert name.startswith(KEY)
    return found


ALL = Policy(
    breaker=BREAKER,
    limits=RateLimit(rate=100),
    bulkhead=Bulkhead(max_concurrent=9),
    budget=Budget(calls=9, per="all"),
)


@pytest.mark.parametrize(
    ("stricter", "error"),
    [
        ({"limits": (RateLimit(rate=100), RateLimit(rate=1, per_seconds=60))}, LimitExceeded),
        ({"bulkhead": Bulkhead(max_concurrent=1)}, BulkheadFull),
        ({"budget": Budget(calls=1, per="all")}, BudgetExceeded),
    ],
)
def test_what_one_guard_refuses_takes_nothing_of_the_others(guards, store, service, stricter, error):
    guard = guards.guard(Policy(**{**dict(ALL), **stricter}), KEY)
    with guard.attempt():
        before = [entry.version for kind in KEEP for _, entry in store.entries(kind) if kind != "budget"]
        was_held = held(guards)
        with pytest.raises(error):
            guard.call(service)
        assert held(guards) == was_held
        assert [
            entry.version for kind in KEEP for _, entry in store.entries(kind) if kind != "budget"
        ] == before
    assert service.calls == 0


def test_a_call_gives_back_all_that_it_held(guards, store, service):
    guard = guards.guard(ALL.model_copy(update={"budget": Budget(calls=9, per="all")}), KEY)
    with guard.attempt():
        assert held(guards) == {"breaker": 1, "limit": 1, "bulkhead": 1, "budget": 1}
    service.error = DOWN
    with pytest.raises(ServiceError):
        guard.call(service)
    assert held(guards) == {"breaker": 0, "limit": 1, "bulkhead": 0, "budget": 0}
    assert not kept()


def test_all_guards_are_asked_and_told_in_one_round_trip_each(guards, store, service):
    guard = guards.guard(ALL.model_copy(update={"budget": Budget(calls=99, per="all")}), KEY)
    guard.call(service)
    before = store.trips
    guard.call(service)
    assert store.trips - before == 2


def test_an_open_breaker_refuses_before_a_limit_does(guards, service):
    policy = Policy(breaker=BREAKER, limits=RateLimit(rate=4, per_seconds=60))
    guard = guards.guard(policy, KEY)
    fail(guard, service, 4)
    with pytest.raises(CircuitOpen):
        guard.call(service)


def test_retries_are_around_the_guards_and_what_they_refuse_ends_them(guards, service):
    policy = Policy(breaker=BREAKER, retry=Retry(max_attempts=99, base_seconds=0.001, max_seconds=0.001))
    service.error = DOWN
    with pytest.raises(CircuitOpen):
        guards.guard(policy, KEY).call(service)
    assert service.calls == 4


def test_each_try_takes_of_limits_and_budget(guards, service):
    retry = Retry(max_attempts=3, base_seconds=0.001, max_seconds=0.001)
    policy = Policy(retry=retry, budget=Budget(calls=5, per="all"))
    guard = guards.guard(policy, KEY)
    service.error = DOWN
    with pytest.raises(ServiceError):
        guard.call(service)
    with pytest.raises(BudgetExceeded):
        guard.call(service)
    assert service.calls == 5


def test_a_timeout_is_of_one_try_and_a_deadline_of_all(guards):
    seen = []

    def slow():
        seen.append(remaining())
        time.sleep(1)

    retry = Retry(max_attempts=9, base_seconds=0.01, max_seconds=0.01, categories=("deadline_exceeded",))
    policy = Policy(retry=retry, timeout=0.2, deadline=0.7)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        guards.guard(policy, KEY).call(slow)
    assert time.monotonic() - began < 1.5
    assert 3 <= len(seen) <= 4
    assert all(left <= 0.2 for left in seen)


# -- limits, bulkhead, budget --------------------------------------------------------------------------


def test_a_call_waits_as_long_as_its_policy_lets(guards, service):
    patient = guards.guard(Policy(limits=RateLimit(rate=1, per_seconds=0.2), max_wait=1), KEY)
    patient.call(service)
    began = time.monotonic()
    patient.call(service)
    assert 0.15 < time.monotonic() - began < 1
    hasty = guards.guard(Policy(limits=RateLimit(rate=1, per_seconds=0.2), max_wait=0.05), KEY)
    with pytest.raises(LimitExceeded, match=r"may be called 1 times in 0.2 s") as raised:
        hasty.call(service)
    assert raised.value.retry_at > datetime.now(UTC)


def test_a_turn_that_comes_too_late_is_given_back_and_is_no_failure(guards, store):
    policy = Policy(
        limits=RateLimit(rate=1, per_seconds=0.3),
        breaker=BREAKER,
        bulkhead=Bulkhead(max_concurrent=3),
        max_wait=5,
    )
    guard = guards.guard(policy, KEY)
    guard.call(lambda: None)
    done = threading.Event()
    with deadline() as mine:
        threading.Timer(0.1, lambda: (mine.cancel("cleared"), done.set())).start()
        with pytest.raises(WorkCancelled):
            guard.call(lambda: None)
    done.wait(5)
    assert held(guards) == {"breaker": 0, "limit": 1, "bulkhead": 0}
    assert guards.breaker(KEY).view().tally.calls == 1
    assert not kept()


def test_no_more_are_in_than_may_be_and_who_waits_comes_in_soon_after(guards, service):
    guard = guards.guard(Policy(bulkhead=Bulkhead(max_concurrent=3), max_wait=20), KEY)
    threads = [
        threading.Thread(target=guard.call, args=(lambda: (time.sleep(0.05), service()),)) for _ in range(12)
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert service.calls == 12
    assert service.most <= 3
    assert time.monotonic() - began < 10


def test_a_slot_that_another_process_frees_is_seen_at_once(store, service):
    mine, other = made(store), made(store)
    policy = Policy(bulkhead=Bulkhead(max_concurrent=1), max_wait=5)
    theirs = other.guard(policy, KEY)
    threading.Timer(0.2, theirs.end, (Attempt(theirs.admit(), 0.0),)).start()
    began = time.monotonic()
    mine.guard(policy, KEY).call(service)
    assert 0.15 < time.monotonic() - began < 0.7


def test_a_slot_is_kept_as_long_as_the_call_goes_on(store, service):
    guards = made(store)
    guard = guards.guard(Policy(bulkhead=Bulkhead(max_concurrent=1, lease_seconds=0.3)), KEY)
    with guard.attempt():
        time.sleep(0.7)
        with pytest.raises(BulkheadFull):
            made(store).guard(guard.policy, KEY).call(service)
    guard.call(service)


def test_a_slot_is_still_kept_after_the_store_was_away(store, service, monkeypatch):
    monkeypatch.setattr(shared, "_PAUSE_SECONDS", 0.05)
    guards = made(store)
    guard = guards.guard(Policy(bulkhead=Bulkhead(max_concurrent=1, lease_seconds=0.9)), KEY)
    with guard.attempt():
        store.is_away = True
        time.sleep(0.5)
        store.is_away = False
        time.sleep(1)
        with pytest.raises(BulkheadFull):
            made(store).guard(guard.policy, KEY).call(service)


def test_what_a_call_spends_counts_for_all_budgets_around_it(guards, store):
    outer = guards.guard(Policy(budget=Budget(tokens=1000, per="dag")), "agent:a", Subject(dag="d"))
    inner = guards.guard(Policy(budget=Budget(cost_usd=5, reserve_cost_usd=1, per="all")), "conn:b")

    def work():
        spend(tokens=100, cost_usd=0.5)

    def both():
        inner.call(work)
        spend(tokens=10)

    outer.call(both)
    spent = {name.partition("/")[0]: doc["spent"] for name, doc, _ in guards.shared.listed("budget")}
    assert spent == {
        "agent:a": {"calls": 1, "tokens": 110, "cost_usd": 0.5},
        "conn:b": {"calls": 1, "tokens": 100, "cost_usd": 0.5},
    }


def test_budgets_are_by_subject_and_by_name(store, service):
    guards = made(store, budgets={"models": Budget(calls=1, per="team")})
    policy = Policy(budget="models")
    guards.guard(policy, "conn:a", Subject(team="red")).call(service)
    guards.guard(policy, "conn:a", Subject(team="blue")).call(service)
    # One budget, whatever is called.
    with pytest.raises(BudgetExceeded, match=r"'models/team=red/\d{4}-\d\d-\d\d' is used up"):
        guards.guard(policy, "conn:b", Subject(team="red")).call(service)
    with pytest.raises(ConfigurationError, match=r"model'.*'models'"):
        guards.guard(Policy(budget="model"), "conn:a")


def test_a_name_that_is_too_long_for_a_store_is_shortened_and_still_its_own(guards, service):
    policy = Policy(budget=Budget(calls=1, period="run", per="dag"))
    for run in ("x" * 250 + "1", "x" * 250 + "2"):
        subject = Subject(dag="d" * 250, run=run)
        guards.guard(policy, "k" * 200, subject).call(service)
        with pytest.raises(BudgetExceeded):
            guards.guard(policy, "k" * 200, subject).call(service)
    assert all(len(name) <= 400 for name, _, _ in guards.shared.listed("budget"))


@pytest.mark.parametrize("key", ["", "  ", "k" * 201])
def test_a_key_that_is_none_is_refused(guards, key):
    with pytest.raises(ConfigurationError, match="1 to 200 characters"):
        guards.guard(Policy(), key)
