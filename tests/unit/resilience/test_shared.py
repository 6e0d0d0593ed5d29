from __future__ import annotations

import logging
import threading
import time

import pytest
from guard_parts import Notebook, Shaky

from airflow_agentic.errors import GuardsUnavailable, StoreError, StoreUnavailable
from airflow_agentic.resilience import shared
from airflow_agentic.resilience.ports import GuardChange, GuardEvent, GuardKey
from airflow_agentic.resilience.shared import Decision, SharedState

KEY, OTHER = GuardKey("limit", "a"), GuardKey("budget", "b")


def add_one(docs, now):
    number = docs.get(KEY, {"n": 0})["n"] + 1
    return Decision(number, {KEY: {"n": number}})


def look(docs, now):
    return Decision(docs.get(KEY, {"n": 0})["n"])


@pytest.fixture
def store():
    return Shaky()


@pytest.fixture
def short_pause(monkeypatch):
    monkeypatch.setattr(shared, "_PAUSE_SECONDS", 0.05)


def test_what_was_just_seen_is_written_in_one_round_trip(store):
    state = SharedState(store)
    assert [state.update([KEY], add_one) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert (store.reads, store.changes) == (1, 5)


def test_whoever_was_beaten_decides_anew(store):
    mine, other = SharedState(store), SharedState(store)
    mine.update([KEY], add_one)
    other.update([KEY], add_one)
    assert mine.update([KEY], add_one) == 3


def test_where_others_change_it_all_the_time_nobody_guesses(store):
    mine, other = SharedState(store), SharedState(store)
    for state in (mine, other, mine, other):
        state.update([KEY], add_one)
    before = store.trips
    for _ in range(5):
        mine.update([KEY], add_one)
        other.update([KEY], add_one)
    assert store.trips - before <= 20


def test_of_several_documents_all_are_changed_or_none(store):
    mine, other = SharedState(store), SharedState(store)
    seen = []

    def both(docs, now):
        seen.append(dict(docs))
        if len(seen) == 1:
            other.update([OTHER], lambda docs, now: Decision(None, {OTHER: {"by": "other"}}))
        number = docs.get(KEY, {"n": 0})["n"] + 1
        return Decision(number, {KEY: {"n": number}, OTHER: {"by": "me", "n": number}})

    assert mine.update([KEY, OTHER], both) == 1
    assert seen == [{}, {OTHER: {"by": "other"}}]


def test_many_threads_and_processes_lose_no_change(store):
    states = [SharedState(store) for _ in range(4)]
    answers = []

    def work(state):
        answers.extend(state.update([KEY], add_one) for _ in range(25))

    threads = [threading.Thread(target=work, args=(state,)) for state in states * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == list(range(1, 201))


@pytest.mark.parametrize("staleness", [0.0, 0.1])
def test_a_decision_to_change_nothing_is_not_older_than_said(store, staleness):
    mine, other = SharedState(store, None, staleness), SharedState(store)
    other.update([KEY], add_one)
    assert mine.update([KEY], look) == 1
    other.update([KEY], add_one)
    time.sleep(staleness + 0.01)
    assert mine.update([KEY], look) == 2


def test_who_wants_to_know_for_sure_asks(store):
    mine, other = SharedState(store), SharedState(store)
    mine.update([KEY], add_one)
    other.update([KEY], add_one)
    assert mine.update([KEY], look) == 1
    assert mine.update([KEY], look, fresh=True) == 2


def test_a_peek_asks_nobody_and_knows_nothing_after_a_while(store):
    state = SharedState(store, None, 0.1)
    assert state.peek(KEY) is None
    state.update([KEY], add_one)
    trips = store.trips
    assert state.peek(KEY)[0] == {"n": 1}
    time.sleep(0.11)
    assert state.peek(KEY) is None
    assert store.trips == trips


def test_the_time_is_that_of_the_store_and_never_ahead_of_it(store):
    state = SharedState(store)
    for _ in range(50):
        state.update([KEY], add_one)
        here = state.now()
        assert -0.005 <= store.read([]).now.timestamp() - here < 1


def test_without_the_store_each_goes_on_alone_and_says_so_once(store, short_pause, caplog):
    notes = Notebook()
    state = SharedState(store, notes)
    state.update([KEY], add_one)
    state.update([KEY], add_one)
    store.is_away = True
    with caplog.at_level(logging.WARNING):
        for number in range(1, 30):
            assert state.update([KEY], add_one) == number
            time.sleep(0.01)
    assert len(caplog.records) == 1
    assert "guards alone until it can" in caplog.text
    assert notes.types() == ["guards.unavailable"]
    assert state.is_alone
    store.is_away = False
    caplog.clear()
    time.sleep(0.06)
    with caplog.at_level(logging.WARNING):
        for number in range(3, 10):
            assert state.update([KEY], add_one) == number
    assert [record.message for record in caplog.records] == ["the store of the guards is back"]
    assert notes.types() == ["guards.unavailable", "guards.available"]
    store.is_away = True
    # Another time it is said anew, and what was known alone then is forgotten.
    assert state.update([KEY], add_one) == 1
    assert len(notes.types()) == 3


def test_a_store_that_is_away_is_not_asked_by_each_call(store):
    state = SharedState(store)
    store.is_away = True
    for _ in range(100):
        state.update([KEY], add_one)
    assert store.trips == 1


def test_one_call_waits_for_the_answer_whether_it_is_back_and_the_others_do_not(store, short_pause):
    class Slow(Shaky):
        def read(self, keys):
            if self.is_away:
                time.sleep(0.5)
            return super().read(keys)

    slow = Slow()
    state = SharedState(slow)
    slow.is_away = True
    state.update([KEY], add_one)
    time.sleep(0.06)
    waited = []

    def work():
        began = time.monotonic()
        state.update([KEY], add_one)
        waited.append(time.monotonic() - began)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
        time.sleep(0.005)
    for thread in threads:
        thread.join()
    assert sum(each > 0.4 for each in waited) == 1


def test_a_store_that_fails_in_a_way_of_its_own_is_one_that_cannot_be_used(store, caplog):
    state = SharedState(store)
    store.change(  # of a version that knows more, or somebody's own
        [GuardChange(KEY, b"not even JSON", 0)]
    )
    with caplog.at_level(logging.WARNING):
        assert [state.update([KEY], add_one) for _ in range(3)] == [1, 2, 3]
    assert len(caplog.records) == 1
    assert "[JSONDecodeError] the store of the guards cannot be used" in caplog.text


def test_a_decision_that_fails_fails(store):
    def decide(docs, now):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        SharedState(store).update([KEY], decide)


def test_who_wants_no_work_without_the_store_is_refused(store):
    state = SharedState(store)
    store.is_away = True
    for _ in range(2):
        with pytest.raises(GuardsUnavailable, match="without_store: open") as raised:
            state.update([KEY], add_one, without_store="open")
        assert raised.value.retry_at is not None


def test_what_people_do_is_done_in_the_store_or_not_at_all(store):
    state = SharedState(store)
    store.is_away = True
    with pytest.raises(StoreUnavailable):
        state.insist([KEY], add_one)
    with pytest.raises(StoreUnavailable):
        state.read([KEY])
    assert state.known([KEY])[0] == {}


def test_a_change_of_which_nobody_knows_whether_it_was_done_is_looked_at_again(store):
    class Cut(Shaky):
        def change(self, changes):
            super().change(changes)
            if self.is_cut:
                raise StoreUnavailable("the answer was lost")

    cut = Cut()
    cut.is_cut = True
    state = SharedState(cut)
    with pytest.raises(StoreUnavailable):
        state.insist([KEY], add_one)
    del Cut.change
    assert state.insist([KEY], add_one) == 2


def test_events_are_told_once_and_who_listens_badly_harms_nobody(store):
    told = []

    class Deaf:
        def tell(self, event):
            told.append(event)
            raise RuntimeError("not now")

    state, other = SharedState(store, Deaf()), SharedState(store)
    state.update([KEY], add_one)
    other.update([KEY], add_one)

    def decide(docs, now):
        return Decision("done", {KEY: {"n": 9}}, (GuardEvent("breaker.opened", "a", store.read([]).now),))

    assert state.update([KEY], decide) == "done"
    assert len(told) == 1


def test_what_a_process_remembers_does_not_grow_without_end(store, monkeypatch):
    monkeypatch.setattr(shared, "_OLDEST_GUESS_SECONDS", 0.0)
    state = SharedState(store)
    for number in range(3_000):
        state.update([GuardKey("answer", str(number))], lambda docs, now: Decision(None))
    assert len(state._seen) <= 1_001


def test_a_document_that_others_change_all_the_time_is_given_up_in_the_end(store, monkeypatch):
    monkeypatch.setattr(shared, "_LONGEST_CONTENTION_SECONDS", 0.1)

    def decide(docs, now):
        version = store.read([KEY]).entries[KEY].version if KEY in docs else 0
        store.change([GuardChange(KEY, b'{"n": 0}', version)])
        return add_one(docs, now)

    with pytest.raises(StoreError, match="changed by others all the time"):
        SharedState(store).insist([KEY], decide)
