"""Faults on a real SQLite store: what each means for whoever calls, and that the books balance afterwards."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pytest

from airflow_agentic.agents.worker import MailboxWorker
from airflow_agentic.config.faults import FaultRule
from airflow_agentic.errors import StaleLease, StoreUnavailable
from airflow_agentic.messaging import BusOptions, Message, MessageBus
from airflow_agentic.messaging.delivery import DeliveryState
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.resilience.fault_rules import FaultRules
from airflow_agentic.resilience.faults import Faults
from airflow_agentic.resilience.ports import GuardChange, GuardKey
from airflow_agentic.stores import open_store
from airflow_agentic.stores.faulty import FaultyGuards, damaged, faulty_bus
from airflow_agentic.stores.sql import SqlGuards, schema, sql_bus_store

BOX = "triage"
LEASE = timedelta(seconds=0.3)
OPTIONS = BusOptions(
    lease=LEASE,
    retry_base=timedelta(0),
    retry_max=timedelta(0),
    poll=timedelta(seconds=0.02),
    max_attempts=50,
)


def rule(what, where, **said):
    return FaultRule(what=what, where=where, **said)


def message(name="m", **said):
    return Message(id=name, source="shop", recipient=BOX, data={"name": name}, **said)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/agentic.db"


@pytest.fixture
def database(url):
    opened = schema.open_database(url)
    yield opened
    opened.close()


@pytest.fixture
def bus(database):
    """What is really there."""
    return MessageBus(sql_bus_store(database), OPTIONS)


@pytest.fixture
def with_faults(database):
    def make(**rules):
        faults = Faults(SqlGuards(database), rules, refresh_seconds=0)
        return MessageBus(faulty_bus(sql_bus_store(database), faults), OPTIONS)

    return make


@pytest.fixture
def injected(database):
    return lambda **rules: FaultRules(SqlGuards(database), rules).views()[0].injected


def records(bus):
    return bus.find(DeliveryQuery(limit=10_000))


def only(bus):
    [record] = records(bus)
    return record


class Handler:
    """Notes what it handles, and sends one message on for each."""

    def __init__(self):
        self.handled = []

    def handle(self, messages):
        self.handled += [each.id for each in messages]
        return [
            Message(id=f"{m.id}/child", source=BOX, recipient="ledger", ordering_key=m.ordering_key)
            for m in messages
        ]

    def is_done(self, message):
        return False

    def refusal(self, message, error):
        return None

    def discreet(self, text):
        return text

    def beat(self):
        pass

    def recover(self):
        pass


class TestSending:
    def test_an_error_means_that_nothing_was_done(self, with_faults, bus):
        faulty = with_faults(a=rule("error", f"send:{BOX}", count=1))
        with pytest.raises(StoreUnavailable, match=r"\[injected\] error at send:triage, rule 'a', number 1"):
            faulty.send(message())
        assert records(bus) == []
        assert faulty.send(message()) is True

    def test_of_a_dropped_answer_the_message_is_there_and_is_not_taken_twice(self, with_faults, bus):
        faulty = with_faults(a=rule("drop", "send:*", count=1))
        with pytest.raises(StoreUnavailable, match="drop"):
            faulty.send(message())
        assert only(bus).state is DeliveryState.READY
        assert faulty.send(message()) is False
        assert only(bus).message.id == "m"

    def test_a_duplicate_is_known_as_one(self, with_faults, bus, injected):
        rules = {"a": rule("duplicate", "send:*")}
        faulty = with_faults(**rules)
        assert faulty.send_many([message("m"), message("n")]) == [True, True]
        assert sorted(record.message.id for record in records(bus)) == ["m", "n"]
        assert injected(**rules) == 2

    def test_a_message_for_others_is_let_alone(self, with_faults):
        faulty = with_faults(a=rule("error", "send:ledger"))
        assert faulty.send(message())

    def test_one_killed_after_the_commit_finds_its_message_sent(self, url, bus):
        code = (
            "import sys\n"
            "from airflow_agentic.config.faults import FaultRule\n"
            "from airflow_agentic.messaging import Message, MessageBus\n"
            "from airflow_agentic.resilience.faults import Faults\n"
            "from airflow_agentic.stores.faulty import faulty_bus\n"
            "from airflow_agentic.stores.sql import SqlGuards, schema, sql_bus_store\n"
            "database = schema.open_database(sys.argv[1])\n"
            "rules = {'a': FaultRule(what='sigkill', where='send:*', count=1)}\n"
            "bus = MessageBus(faulty_bus(sql_bus_store(database), Faults(SqlGuards(database), rules)))\n"
            "print(bus.send(Message(id='m', source='shop', recipient='triage')))\n"
            "database.close()\n"
        )
        lives = [
            subprocess.run([sys.executable, "-c", code, url], check=False, capture_output=True, text=True)
            for _ in "12"
        ]
        assert [(life.returncode, life.stdout) for life in lives] == [(-signal.SIGKILL, ""), (0, "False\n")]
        assert only(bus).message.id == "m"


class TestReceiving:
    def test_of_a_dropped_answer_the_lease_must_end_first(self, with_faults, bus):
        faulty = with_faults(a=rule("drop", f"receive:{BOX}", count=1))
        bus.send(message())
        with pytest.raises(StoreUnavailable, match="drop at receive:triage"):
            faulty.receive(BOX)
        assert faulty.receive(BOX) == []
        time.sleep(LEASE.total_seconds() + 0.05)
        [delivery] = faulty.receive(BOX)
        delivery.ack()
        assert (only(bus).attempts, [entry.event for entry in only(bus).history]) == (2, ["lease-expired"])

    def test_an_empty_mailbox_has_no_answer_to_lose(self, with_faults):
        faulty = with_faults(a=rule("drop", "receive:*"), b=rule("latency", "receive:*", seconds=60))
        assert faulty.receive(BOX) == []

    def test_a_broken_message_is_put_aside_with_the_reason_and_can_be_redriven_whole(self, with_faults, bus):
        faulty = with_faults(a=rule("corrupt", "receive:*", count=1))
        bus.send_many([message("m"), message("n")])
        assert [each.message.id for each in faulty.receive(BOX, max_messages=2)] == ["n"]
        [dead] = bus.dead_letters(BOX)
        assert dead.reason.startswith("the envelope is not JSON")
        assert bus.redrive(dead.delivery_id, actor="ana", reason="whole") == [dead.delivery_id]
        assert [each.message.data for each in bus.receive(BOX)] == [{"name": "m"}]

    def test_whatever_byte_is_broken_it_is_one_and_no_text_any_more(self):
        envelope = '{"name": "ü"}'.encode()
        for chance in range(50):
            broken = damaged(envelope, chance)
            assert sum(a != b for a, b in zip(envelope, broken, strict=True)) == 1
            with pytest.raises(UnicodeDecodeError):
                broken.decode()

    def test_a_message_comes_late_but_it_comes(self, with_faults, bus):
        faulty = with_faults(a=rule("latency", "receive:*", seconds=0.2, count=1))
        bus.send(message())
        began = time.monotonic()
        assert len(faulty.receive(BOX, lease=timedelta(seconds=30))) == 1
        assert time.monotonic() - began >= 0.2


class TestSettling:
    def test_a_dropped_ack_is_an_ack(self, with_faults, bus):
        bus.send(message())
        faulty = with_faults(a=rule("drop", "store", after=1, count=1))
        [delivery] = faulty.receive(BOX)
        with pytest.raises(StoreUnavailable):
            delivery.ack(send=[message("child")])
        assert {r.message.id: r.state for r in records(bus)} == {
            "m": DeliveryState.DONE,
            "child": DeliveryState.READY,
        }
        with pytest.raises(StaleLease):
            delivery.nack(reason="it failed, as far as I know")

    def test_what_handling_produced_and_is_sent_twice_is_there_once(self, with_faults, bus):
        bus.send(message())
        [delivery] = with_faults(a=rule("duplicate", "send:ledger")).receive(BOX)
        delivery.ack(send=[Message(id="child", source=BOX, recipient="ledger")])
        assert Counter(r.message.id for r in records(bus)) == {"m": 1, "child": 1}


class TestStore:
    def test_each_operation_takes_longer(self, with_faults):
        faulty = with_faults(a=rule("slow_store", "store", seconds=0.1))
        began = time.monotonic()
        faulty.send(message())
        [delivery] = faulty.receive(BOX, lease=timedelta(seconds=30))
        delivery.ack()
        assert 0.3 <= time.monotonic() - began < 5

    @pytest.mark.parametrize("seconds", [3600, -3600])
    def test_leases_are_the_stores_whatever_this_process_takes_the_time_for(self, with_faults, bus, seconds):
        faulty = with_faults(a=rule("clock_jump", "store", seconds=seconds))
        bus.send(message())
        [delivery] = faulty.receive(BOX)
        off = datetime.now(UTC) - delivery.lease_until
        assert abs(off.total_seconds() - seconds) < 5
        assert bus.receive(BOX) == []
        delivery.extend(LEASE)
        time.sleep(LEASE.total_seconds() + 0.05)
        [second] = bus.receive(BOX)
        with pytest.raises(StaleLease):
            delivery.ack()
        second.ack()

    def test_a_message_expires_by_the_clock_of_its_sender_and_is_not_lost(self, with_faults, bus):
        faulty = with_faults(a=rule("clock_jump", "store", seconds=3600))
        faulty.send(message(expires_at=datetime.now(UTC) + timedelta(minutes=5)))
        assert bus.receive(BOX) == []
        assert bus.purge() == 0
        assert [letter.reason for letter in bus.dead_letters(BOX)] == ["expired: nobody took it in time"]

    def test_guards_suffer_what_the_store_does(self, database):
        raw = SqlGuards(database)
        faulty = FaultyGuards(
            raw,
            Faults(
                raw,
                {"a": rule("error", "store", count=1), "b": rule("drop", "store", after=1, count=1)},
                refresh_seconds=0,
            ),
        )
        key = GuardKey("breaker", "conn:x")
        with pytest.raises(StoreUnavailable, match="error"):
            faulty.read([key])
        assert faulty.read([key]).entries == {}
        with pytest.raises(StoreUnavailable, match="drop"):
            faulty.change([GuardChange(key, b"{}", 0)])
        assert raw.read([key]).entries[key].value == b"{}"


class TestBooks:
    def test_with_everything_that_can_go_wrong_at_once_the_books_balance(self, with_faults, bus):
        """Each promise is counted: nothing lost, made up or done twice, lanes in order, and all ends as done."""
        seed = random.randrange(10**6)
        faulty = with_faults(
            early=rule("error", "send:*", probability=0.1, seed=seed),
            late=rule("drop", "send:*", probability=0.1, seed=seed + 1),
            twice=rule("duplicate", "send:*", probability=0.3, seed=seed + 2),
            taken=rule("drop", "receive:*", probability=0.1, seed=seed + 3),
            away=rule("error", "store", probability=0.05, seed=seed + 4),
            off=rule("clock_jump", "store", seconds=900, probability=0.3, seed=seed + 5),
            slow=rule("slow_store", "store", seconds=0.005, probability=0.2, seed=seed + 6),
        )
        sent = [f"m{number:02}" for number in range(40)]
        for number, name in enumerate(sent):
            keyed = message(name, ordering_key=f"lane-{number % 4}")
            _insist(lambda keyed=keyed: faulty.send(keyed))
        handler = Handler()
        worker = MailboxWorker(faulty, handler, LEASE)
        deadline = time.monotonic() + 60
        while bus.stats(BOX).open and time.monotonic() < deadline:
            _insist(lambda: worker.drain(BOX, linger=timedelta(seconds=0.1)))

        kept = records(bus)
        said = f"seed {seed}"
        parents = [record for record in kept if record.mailbox == BOX]
        children = [record for record in kept if record.mailbox == "ledger"]
        assert Counter(r.message.id for r in parents) == Counter(sent), said
        assert Counter(r.message.id for r in children) == Counter(f"{name}/child" for name in sent), said
        assert {record.state for record in parents} == {DeliveryState.DONE}, said
        for record in parents:
            explained = sum(entry.event in ("nack", "lease-expired") for entry in record.history)
            assert record.attempts - 1 <= explained, said
            assert handler.handled.count(record.message.id) <= record.attempts, said
        lanes = defaultdict(list)
        for record in sorted(children, key=lambda record: record.delivery_id):
            lanes[record.message.ordering_key].append(record.message.id)
        assert all(one < other for lane in lanes.values() for one, other in itertools.pairwise(lane)), said


def _insist(work):
    """Do what callers of a store do: try again."""
    for _ in range(50):
        try:
            return work()
        except StoreUnavailable:
            continue
    raise AssertionError("it never worked")


def test_who_injects_no_faults_has_nothing_of_it(url):
    code = (
        "import sys\n"
        "from airflow_agentic.stores import open_store\n"
        "with open_store(sys.argv[1]) as store:\n"
        "    assert store.bus.mailboxes() == []\n"
        "sys.exit('airflow_agentic.stores.faulty' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, url], check=False).returncode == 0


class TestOpenStore:
    def test_a_store_with_faults_obeys_those_given_and_those_that_it_has(self, url):
        with open_store(url) as store:
            assert store.faults is None
            FaultRules(store.guards).add("b", rule("duplicate", "send:*"), actor="ana")
        with open_store(url, faults={"a": rule("error", "send:*", count=1)}) as store:
            with pytest.raises(StoreUnavailable, match="injected"):
                store.bus.send(message())
            assert store.bus.send(message())
            assert [(view.name, view.injected) for view in store.faults.views()] == [("a", 1), ("b", 1)]

    def test_whoever_subscribed_is_told_of_each_fault(self, url):
        with open_store(url, faults={"a": rule("slow_store", "store", seconds=0.01, count=3)}) as store:
            store.bus.subscribe("watch", "agentic.faults.*")
            store.bus.send(message())
            told = [each.message for each in store.bus.receive("watch", max_messages=10)]
        assert told
        assert {(m.type, m.subject, m.data["rule"]) for m in told} == {
            ("agentic.faults.injected", "store", "a")
        }

    def test_a_guarded_call_fails_on_purpose_and_counts_as_failed(self, url):
        from airflow_agentic.errors import CircuitOpen, InjectedFault
        from airflow_agentic.resilience import Breaker, Policy

        policy = Policy(breaker=Breaker(window_size=2, minimum_calls=2))
        with open_store(url, faults={"a": rule("error", "call:conn:*")}) as store:
            guard = store.guard(policy, "conn:primary")
            for _ in range(2):
                with pytest.raises(InjectedFault):
                    guard.call(lambda: 1)
            with pytest.raises(CircuitOpen):
                guard.call(lambda: 1)
