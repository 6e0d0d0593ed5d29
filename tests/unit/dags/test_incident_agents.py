"""The agents of the incident triage, each alone: what they collect, read, decide and do, also when they are killed."""

from dataclasses import replace

import pytest

from airflow_agentic.agents import RunIdentity
from airflow_agentic.agents.awaiting import Awaited
from airflow_agentic.errors import ServiceRefused
from airflow_agentic.messaging import Message
from airflow_agentic.persistence import Interrupted, RunStatus, Sleeping
from airflow_agentic.testing import FakeClock, memory_store, run_agent
from incident_agents import Classifier, Collector, Correlator, Resolver, read_log, report
from incident_airflow import AirflowApi
from incident_book import IncidentBook
from incident_models import Failure

RUN = RunIdentity("incident_triage", "run-1", "collect")
ACTIONS = {"transient": "retry", "bug": "ticket"}


class Killed(BaseException):
    """As SIGKILL does it: nobody is told."""


class FakeAirflow(AirflowApi):
    """An Airflow in which tasks have failed."""

    def __init__(self, records=(), refuses=False):
        super().__init__("none")
        self.records, self.refuses = list(records), refuses
        self.cleared, self.running, self.kill_after_clear = [], set(), False

    def log(self, failure):
        if self.refuses:
            raise ServiceRefused("there is no log", 404)
        return self.records

    def link(self, failure):
        return f"http://airflow/{failure.task}"

    def is_still_failed(self, failure):
        return failure.instance not in self.running

    def clear(self, failure, note):
        self.cleared.append((failure.task, note))
        self.running.add(failure.instance)
        if self.kill_after_clear:
            self.kill_after_clear = False
            raise Killed


def told(number=1, **fields):
    about = {"dag_id": "d", "run_id": "r", "task_id": f"t{number}", "map_index": -1, "try_number": 1}
    return {**about, "state": "failed", "exception": {"type": "KeyError", "message": "'a'"}, **fields}


def failure(number=1, **fields):
    return Failure.model_validate({**told(number), "id": f"f{number}", **fields})


def verdict(*failures, category="transient", confidence=0.9):
    incident = {
        "id": "Error-1", "signature": "Error: x", "raised": {"type": "Error", "message": "x"},
        "failures": [each.model_dump() for each in failures], "lines": ["Error: x"],
    }  # fmt: skip
    return {"incident": incident, "category": category, "confidence": confidence, "because": ["Error: x"]}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    with memory_store(clock) as opened:
        yield opened


class DyingBook(IncidentBook):
    """A process dies after it has written a ticket."""

    kill_after_writing = False

    def write_ticket(self, verdict, why):
        file = super().write_ticket(verdict, why)
        if self.kill_after_writing:
            self.kill_after_writing = False
            raise Killed
        return file


@pytest.fixture
def book(tmp_path):
    return DyingBook(str(tmp_path))


class TestCollector:
    @pytest.fixture
    def collect(self, store, book):
        def collected(run=RUN, **config):
            said = {"gather_seconds": 0, **config}
            return run_agent(
                Collector, "incidents", config=said, store=store, run=run, services={IncidentBook: book}
            )

        return collected

    def send(self, store, *data):
        for number, each in enumerate(data):
            store.bus.send(Message(source=f"test-{number}", recipient="incidents", data=each))

    def test_it_takes_what_came_and_nothing_is_left(self, collect, store):
        self.send(store, told(1), told(2))
        assert [each["task_id"] for each in collect().result] == ["t1", "t2"]
        stats = store.bus.stats("incidents")
        assert (stats.done, stats.open, stats.dead) == (2, 0, 0)

    def test_nothing_came(self, collect):
        assert collect().result == []

    def test_it_waits_for_what_belongs_to_it(self, collect, store, clock):
        self.send(store, told(1))
        with pytest.raises(Sleeping):
            collect(gather_seconds=5)
        self.send(store, told(2))
        clock.advance(6)
        assert [each["task_id"] for each in collect(gather_seconds=5).result] == ["t1", "t2"]

    def test_what_is_too_much_stays_for_the_next_run(self, collect, store):
        self.send(store, told(1), told(2), told(3))
        assert len(collect(most=2).result) == 2
        assert store.bus.stats("incidents").ready == 1

    def test_tried_again_after_its_end_it_has_the_same(self, collect, store):
        self.send(store, told(1))
        first = collect().result
        assert collect(replace(RUN, try_number=2)).result == first != []

    def test_cleared_and_begun_anew_it_has_the_same(self, collect, store):
        self.send(store, told(1))
        first = collect().result
        assert collect(replace(RUN, try_number=2, generation=1)).result == first != []

    def test_killed_before_the_ack_it_shares_no_message_with_the_run_that_takes_it_then(
        self, collect, store, book, clock, monkeypatch
    ):
        self.send(store, told(1))

        def killed(*_):
            raise Killed

        with monkeypatch.context() as dying:
            dying.setattr(Awaited, "_ack", killed)
            with pytest.raises(Killed):
                collect()
        clock.advance(3600)
        other = replace(RUN, run_id="run-2")
        assert [each["task_id"] for each in collect(other).result] == ["t1"]
        assert collect(replace(RUN, try_number=2)).result == []
        taken = {run: len(book.intake(f"incident_triage:{run}").failures) for run in ("run-1", "run-2")}
        assert taken == {"run-1": 0, "run-2": 1}
        stats = store.bus.stats("incidents")
        assert (stats.done, stats.open, stats.dead) == (1, 0, 0)

    def test_what_is_nothing_to_decide_about_is_set_aside(self, collect, store, book):
        self.send(store, "hello", {"dag_id": "d"}, told(1, state="up_for_retry"), told(2))
        assert [each["task_id"] for each in collect().result] == ["t2"]
        why = [each.why for each in book.intake("incident_triage:run-1").set_aside]
        assert [each[:13] for each in why] == ["it tells of n", "it tells of n", "it is up_for_"]

    def test_the_triage_does_not_look_after_itself(self, collect, store, book):
        self.send(store, told(1, dag_id="incident_triage"))
        assert collect().result == []
        [aside] = book.intake("incident_triage:run-1").set_aside
        assert aside.why == "the triage does not look after itself"


def records():
    detail = {"exc_type": "KeyError", "exc_value": "'amount'", "frames": []}
    return [{"event": "Task failed with exception", "level": "error", "error_detail": [detail]}]


class TestLogReader:
    def test_the_log_counts_and_not_the_message(self):
        run = run_agent(read_log, failure(1).model_dump(), services={AirflowApi: FakeAirflow(records())})
        assert run.result["raised"] == {"type": "KeyError", "message": "'amount'"}
        assert run.result["link"] == "http://airflow/t1"

    def test_where_there_is_no_log_the_message_does_and_it_says_so(self):
        run = run_agent(read_log, failure(1).model_dump(), services={AirflowApi: FakeAirflow(refuses=True)})
        assert run.result["raised"] == {"type": "KeyError", "message": "'a'"}
        assert run.state == "degraded"


def test_the_same_cause_is_one_incident_and_the_rules_are_configuration():
    services = {AirflowApi: FakeAirflow(records())}
    evidence = [run_agent(read_log, failure(n).model_dump(), services=services).result for n in (1, 2)]
    [incident] = run_agent(Correlator, evidence).result
    assert [each["id"] for each in incident["failures"]] == ["f1", "f2"]
    rules = {"rules": [{"category": "bug", "pattern": "^KeyError", "confidence": 0.8}]}
    found = run_agent(Classifier, incident, config=rules).result
    assert (found["category"], found["confidence"], found["because"]) == ("bug", 0.8, ["KeyError: 'amount'"])


class TestResolver:
    @pytest.fixture
    def airflow(self):
        return FakeAirflow()

    @pytest.fixture
    def resolve(self, store, book, airflow):
        def resolved(task, key="it", **config):
            said = {"actions": ACTIONS, "wait_seconds": 0, **config}
            services = {AirflowApi: airflow, IncidentBook: book}
            return run_agent(Resolver, task, config=said, store=store, key=key, services=services).result

        return resolved

    def checkpoints(self, store, key="it"):
        return [event.name for event in store.history(key) if event.type == "checkpoint"]

    def test_what_goes_by_itself_is_tried_again(self, resolve, airflow, store):
        decision = resolve(verdict(failure(1), failure(2)))
        assert (decision["choice"], decision["by"], decision["ticket"]) == ("retry", "rules", None)
        assert decision["outcomes"] == {"f1": "tried again", "f2": "tried again"}
        assert [task for task, _ in airflow.cleared] == ["t1", "t2"]
        assert airflow.cleared[0][1] == "Incident Error-1: retry 1, by the incident triage."
        assert self.checkpoints(store) == ["evidence", "decided", "done"]

    def test_it_waits_before_that(self, resolve, airflow, clock):
        with pytest.raises(Sleeping):
            resolve(verdict(failure(1)), wait_seconds=30)
        assert airflow.cleared == []
        clock.advance(31)
        assert resolve(verdict(failure(1)), wait_seconds=30)["outcomes"] == {"f1": "tried again"}

    def test_killed_after_the_effect_it_does_not_do_it_again(self, resolve, airflow):
        airflow.kill_after_clear = True
        with pytest.raises(Killed):
            resolve(verdict(failure(1), failure(2)))
        decision = resolve(verdict(failure(1), failure(2)))
        assert decision["outcomes"] == {"f1": "not failed any more", "f2": "tried again"}
        assert [task for task, _ in airflow.cleared] == ["t1", "t2"]

    def test_what_a_person_has_cleared_meanwhile_is_left_alone(self, resolve, airflow):
        airflow.running.add(failure(1).instance)
        assert resolve(verdict(failure(1)))["outcomes"] == {"f1": "not failed any more"}
        assert airflow.cleared == []

    def test_after_so_many_retries_it_is_a_ticket(self, resolve, airflow):
        for number in (1, 2):
            again = failure(1, id=f"try{number}", try_number=number)
            assert resolve(verdict(again), key=f"run-{number}", retries=2)["choice"] == "retry"
            airflow.running.clear()
        decision = resolve(verdict(failure(1, id="try3", try_number=3), failure(2)), key="run-3", retries=2)
        assert (decision["choice"], len(airflow.cleared)) == ("ticket", 2)
        assert decision["why"] == "tried again 2 times, and the cause has not gone"
        assert [task for task, _ in airflow.cleared] == ["t1", "t1"]

    def test_a_bug_is_a_ticket_and_is_written_once(self, resolve, book):
        book.kill_after_writing = True
        with pytest.raises(Killed):
            resolve(verdict(failure(1), category="bug"))
        text = book.open_ticket("Error-1").read_text()
        decision = resolve(verdict(failure(1), category="bug"))
        assert decision["ticket"] == str(book.open_ticket("Error-1"))
        assert book.open_ticket("Error-1").read_text() == text

    def asked(self, resolve, store, task, **config):
        with pytest.raises(Interrupted) as waiting:
            resolve(task, **config)
        assert store.runs.find("it").status == RunStatus.WAITING
        return waiting.value.question

    def answer(self, store, **said):
        store.runs.by_hand.answer("it", "question:decision", said, actor="ana")

    @pytest.mark.parametrize(
        ("choice", "cleared", "tickets"), [("retry", 1, 0), ("ticket", 0, 1), ("ignore", 0, 0)]
    )
    def test_a_person_says_what_to_do_about_what_is_unknown(
        self, resolve, store, airflow, book, choice, cleared, tickets
    ):
        task = verdict(failure(1), category="unknown", confidence=0)
        assert self.asked(resolve, store, task) == "Error: x (d.t1): retry, ticket, or ignore?"
        self.answer(store, decision=choice, note="I looked")
        decision = resolve(task)
        assert (decision["choice"], decision["by"], decision["why"]) == (choice, "a person", "I looked")
        assert len(airflow.cleared) == cleared
        assert bool(book.open_ticket("Error-1")) is bool(tickets)

    def test_whoever_is_asked_sees_the_log_and_where_it_is(self, resolve, store):
        task = verdict(failure(1), failure(2), category="unknown", confidence=0)
        task["incident"] |= {
            "lines": ["Task failed", "  ```", "Error: x"], "links": {"f1": "http://airflow/t1"},
        }  # fmt: skip
        with pytest.raises(Interrupted) as waiting:
            resolve(task)
        assert waiting.value.details.splitlines() == [
            "It is unknown: no rule fits. What failed:", "",
            "- `d/r/t1, try 1` ([log](http://airflow/t1))", "- `d/r/t2, try 1`", "",
            "What the log says:", "", "````text", "Task failed", "  ```", "Error: x", "````",
        ]  # fmt: skip

    def test_and_how_much_of_it_is_left_out(self, resolve, store):
        task = verdict(*map(failure, range(500)), category="unknown", confidence=0)
        task["incident"] |= {
            "lines": [f"{number} {'x' * 296}" for number in range(30)],
            "links": {f"f{number}": "http://airflow/" + "y" * 900 for number in range(500)},
        }
        with pytest.raises(Interrupted) as waiting:
            resolve(task)
        said = waiting.value.details
        assert "t2, try 1`" in said
        assert "- and 497 more" in said
        assert "(the last 20 of 30 lines)" in said
        assert "\n10 xxx" in said
        assert "\n29 xxx" in said
        assert "\n9 xxx" not in said

    def test_or_about_what_the_rules_are_not_sure_of(self, resolve, store):
        self.asked(resolve, store, verdict(failure(1), category="bug", confidence=0.5), least_confidence=0.7)

    def test_if_nobody_answers_it_is_a_ticket(self, resolve, store, book, clock):
        task = verdict(failure(1), category="unknown", confidence=0)
        self.asked(resolve, store, task, answer_within_seconds=60)
        clock.advance(61)
        decision = resolve(task, answer_within_seconds=60)
        assert (decision["choice"], decision["by"]) == ("ticket", "nobody")
        assert book.open_ticket("Error-1")

    def test_a_person_is_asked_once_about_what_comes_while_nobody_has_answered(
        self, resolve, store, airflow, clock
    ):
        first, later = (verdict(failure(n), category="unknown", confidence=0) for n in (1, 2))
        self.asked(resolve, store, first)
        for _ in range(3):
            with pytest.raises(Sleeping):
                resolve(later, key="later")
            clock.advance(60)
        self.answer(store, decision="retry", note="I looked")
        assert resolve(first)["outcomes"] == {"f1": "tried again"}
        decision = resolve(later, key="later")
        assert (decision["choice"], decision["by"], decision["why"]) == ("retry", "a person", "I looked")
        assert [task for task, _ in airflow.cleared] == ["t1", "t2"]
        # What comes after the answer is another question.
        with pytest.raises(Interrupted):
            resolve(verdict(failure(3), category="unknown", confidence=0), key="last")

    def test_nobody_is_asked_about_what_has_a_ticket(self, resolve, store, book):
        resolve(verdict(failure(1), category="bug"), key="first")
        decision = resolve(verdict(failure(2), category="unknown", confidence=0))
        assert (decision["choice"], decision["why"]) == ("ticket", "there is an open ticket for it")
        assert "d/r/t2, try 1" in book.open_ticket("Error-1").read_text()


class TestReporter:
    def test_it_holds_the_decisions_against_what_came(self, store, book):
        services = {IncidentBook: book}
        store.bus.send(Message(source="a", recipient="incidents", data=told(1)))
        [came] = run_agent(
            Collector, "incidents", config={"gather_seconds": 0}, store=store, run=RUN, services=services
        ).result
        decided = run_agent(
            Resolver, verdict(Failure(**came), category="bug"), config={"actions": ACTIONS}, key="it",
            services={**services, AirflowApi: FakeAirflow()},
        ).result  # fmt: skip
        good = run_agent(report, [decided], run=RUN, services=services)
        assert (good.result["came"], good.result["adds_up"], good.state) == (1, True, "ready")
        assert len(list(book.folder.glob("runs/*/report.*"))) == 2
        lost = run_agent(report, [], run=RUN, services=services)
        assert (lost.result["adds_up"], lost.state) == (False, "degraded")

    def test_if_nothing_came_nothing_is_written(self, book):
        assert run_agent(report, [], run=RUN, services={IncidentBook: book}).result["files"] == {}
        assert not book.folder.exists() or not list(book.folder.iterdir())
