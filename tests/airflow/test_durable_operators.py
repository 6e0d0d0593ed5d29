"""Durable runs of agents in DAGs that really run: retries, clears, sleep, messages, people."""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import DAG, task
from durable_steps_airflow import Person, clear

from airflow_agentic.agents import AgentContext, agent
from airflow_agentic.errors import ConfigurationError, ReplyTimeout, ServiceError
from airflow_agentic.messaging import Message
from airflow_agentic.operators.agents import RunAgentOperator
from airflow_agentic.persistence import RunQuery


class Effects(list):
    """What was done outside, in order."""

    def do(self, what):
        self.append(what)
        return what


@pytest.fixture
def effects():
    return Effects()


def only(store):
    [head] = store.runs.find_all()
    return head


def types(store, key):
    return [event.type for event in store.history(key)]


class TestTries:
    def test_a_retry_goes_on_after_the_last_finished_step(self, run_dag, store, effects):
        @agent("payer")
        def payer(task: dict, ctx: AgentContext) -> str:
            ctx.step("pay", effects.do, "pay")
            if len(effects) == 1:
                effects.append("failed")
                raise ServiceError("down")
            return ctx.step("book", effects.do, "book")

        with DAG("retried") as dag_:
            RunAgentOperator(
                task_id="pay", agent="payer", task={}, retries=1, retry_delay=timedelta(seconds=0)
            )
        run = run_dag(dag_)
        assert (run.state, run.task("pay").try_number, run.xcom("pay")) == ("success", 2, "book")
        assert effects == ["pay", "failed", "book"]
        head = only(store)
        assert head.stream == f"payer/retried/{run.run_id}/pay"
        assert (head.correlation, head.task) == (f"retried:{run.run_id}", f"retried/{run.run_id}/pay")
        assert {"run.failed", "run.resumed", "run.finished"} <= set(types(store, head.stream))

    def test_a_failed_task_that_is_cleared_goes_on_as_well(self, run_dag, store, effects):
        broken = [True]

        @agent("payer")
        def payer(task: dict, ctx: AgentContext) -> str:
            ctx.step("pay", effects.do, "pay")
            if broken:
                raise ServiceError("down")
            return ctx.step("book", effects.do, "book")

        with DAG("cleared") as dag_:
            pay = RunAgentOperator(task_id="pay", agent="payer", task={})
        run = run_dag(dag_)
        assert run.state == "failed"
        broken.clear()
        assert clear(run, pay) == "success"
        assert effects == ["pay", "book"]
        assert only(store).status == "finished"

    def test_a_finished_task_that_is_cleared_begins_anew(self, run_dag, store, effects):
        @agent("payer")
        def payer(task: dict, ctx: AgentContext) -> str:
            return ctx.step("pay", effects.do, "pay")

        with DAG("again") as dag_:
            pay = RunAgentOperator(task_id="pay", agent="payer", task={})
        run = run_dag(dag_)
        assert clear(run, pay) == "success"
        assert effects == ["pay", "pay"]
        keys = {head.stream for head in store.runs.find_all()}
        assert keys == {f"payer/again/{run.run_id}/pay", f"payer/again/{run.run_id}/pay#2"}

    def test_a_try_that_died_after_its_end_does_not_run_again(self, run_dag, store, effects, monkeypatch):
        @agent("payer")
        def payer(task: dict, ctx: AgentContext) -> str:
            ctx.send("ledger", {})
            return ctx.step("pay", effects.do, "pay")

        died = []
        show = RunAgentOperator.show_messages

        def dies(operator, *args, **kwargs):
            if not died:
                died.append(1)
                raise OSError("the worker is gone")
            show(operator, *args, **kwargs)

        monkeypatch.setattr(RunAgentOperator, "show_messages", dies)
        with DAG("died") as dag_:
            RunAgentOperator(
                task_id="pay", agent="payer", task={}, retries=1, retry_delay=timedelta(seconds=0)
            )
        run = run_dag(dag_)
        assert (run.state, run.xcom("pay"), effects) == ("success", "pay", ["pay"])
        assert len(store.bus.receive("ledger", max_messages=9)) == 1

    def test_mapped_tasks_and_decorated_ones_have_runs_of_their_own(self, run_dag, store, effects):
        with DAG("mapped") as dag_:

            @task.agentic(persistence="events")
            def payer(order: str, ctx: AgentContext) -> str:
                return ctx.step("pay", effects.do, order)

            payer.expand(order=["a", "b"])
        run = run_dag(dag_)
        assert run.state == "success"
        assert {head.stream.rpartition("/")[2] for head in store.runs.find_all()} == {"0", "1"}
        assert {head.mode for head in store.runs.find_all()} == {"events"}


class TestWaiting:
    def test_sleep_defers(self, run_dag, store, effects):
        @agent("sleeper")
        def sleeper(task: dict, ctx: AgentContext) -> str:
            ctx.step("before", effects.do, "before")
            ctx.sleep_until(datetime.now(UTC) + timedelta(seconds=1.5))
            return ctx.step("after", effects.do, "after")

        with DAG("sleeps") as dag_:
            RunAgentOperator(task_id="sleep", agent="sleeper", task={})
        began = time.monotonic()
        run = run_dag(dag_)
        assert (run.state, run.task("sleep").try_number, effects) == ("success", 1, ["before", "after"])
        assert time.monotonic() - began >= 1.5

    def test_a_message_is_waited_for_in_the_triggerer(self, run_dag, store, effects):
        @agent("waiter")
        def waiter(task: dict, ctx: AgentContext) -> int:
            ctx.step("ask", lambda: effects.do("ask") and ctx.send("bank", {}).id)
            return ctx.wait_for_message("receipts", timeout=60).data["n"]

        with DAG("waits_for_one") as dag_:
            RunAgentOperator(task_id="wait", agent="waiter", task={})

        def answer():
            [asked] = store.bus.receive("bank", wait=timedelta(seconds=30))
            asked.ack(send=[Message(source="bank", recipient="receipts", data={"n": 7})])

        bank = threading.Thread(target=answer)
        bank.start()
        run = run_dag(dag_)
        bank.join()
        assert (run.state, run.xcom("wait"), effects) == ("success", 7, ["ask"])
        assert store.bus.stats("receipts").done == 1

    def test_one_that_does_not_come_is_a_timeout_in_the_agent(self, run_dag, store):
        @agent("waiter")
        def waiter(task: dict, ctx: AgentContext) -> str:
            try:
                return ctx.wait_for_message("receipts", timeout=1).id
            except ReplyTimeout:
                return "nobody"

        with DAG("waits_in_vain") as dag_:
            RunAgentOperator(task_id="wait", agent="waiter", task={})
        run = run_dag(dag_)
        assert (run.state, run.xcom("wait")) == ("success", "nobody")

    def test_a_mailbox_task_waits_for_the_message_whose_run_waits(self, run_dag, store, effects):
        @agent("worker")
        def worker(task: str, ctx: AgentContext) -> str:
            if task == "slow":
                ctx.sleep_until(datetime.now(UTC) + timedelta(seconds=1))
            return ctx.step("do", effects.do, task)

        store.bus.send_many(
            [Message(source="shop", recipient="worker", data=each) for each in ("slow", "quick")]
        )
        with DAG("works_off") as dag_:
            RunAgentOperator(task_id="work", agent="worker", mailbox="worker")
        run = run_dag(dag_)
        # dag.test() does not keep what was counted before a deferral.
        assert (run.state, run.xcom("work")["open"], effects) == ("success", 0, ["quick", "slow"])
        assert len(store.runs.find_all(RunQuery(prefix="worker/message/shop/"))) == 2


SCHEMA = {
    "type": "object",
    "properties": {"approve": {"type": "boolean"}, "limit": {"type": "integer"}, "note": {"type": "string"}},
    "required": ["approve", "limit"],
}


class TestPeople:
    def asking(self, effects, schema=None, **options):
        @agent("asker")
        def asker(task: dict, ctx: AgentContext) -> dict:
            ctx.step("before", effects.do, "before")
            return {"said": ctx.interrupt("May I?", schema, **options)}

    def run(self, run_dag, name, *answers):
        with DAG(name) as dag_:
            RunAgentOperator(task_id="ask", agent="asker", task={})
        person = Person(name, *answers)
        person.start()
        run = run_dag(dag_)
        person.join()
        return run, person.asked

    def test_a_question_is_asked_and_the_agent_goes_on_with_the_answer(self, run_dag, store, effects):
        self.asking(effects)
        run, asked = self.run(run_dag, "asks_text", ("Answer", {"answer": "go on"}))
        assert (run.state, run.xcom("ask"), effects) == ("success", {"said": "go on"}, ["before"])
        assert (asked[0]["subject"], asked[0]["options"], list(asked[0]["params"])) == (
            "May I?", ["Answer"], ["answer"],
        )  # fmt: skip
        [answered] = [each for each in store.history(only(store).stream) if each.type == "question.answered"]
        assert answered.data == {"answer": "go on", "actor": "ann"}

    def test_the_properties_of_a_flat_object_are_fields_and_a_bad_answer_is_asked_again(
        self, run_dag, store, effects
    ):
        self.asking(effects, SCHEMA)
        bad = {"approve": True, "limit": "many", "note": None}
        good = {"approve": True, "limit": 5, "note": None}
        run, asked = self.run(run_dag, "asks_fields", ("Answer", bad), ("Answer", good))
        assert (run.state, run.xcom("ask")) == ("success", {"said": {"approve": True, "limit": 5}})
        assert [list(each["params"]) for each in asked] == [["approve", "limit", "note"]] * 2

    def test_the_details_are_on_the_page_each_time_and_no_error_is_logged(
        self, run_dag, store, effects, capfd
    ):
        self.asking(effects, {"type": "integer"}, details="`KeyError`, see [log](http://airflow/log)")
        answers = ("Answer", {"answer": None}), ("Answer", {"answer": 5})
        run, asked = self.run(run_dag, "asks_with_details", *answers)
        assert (run.state, run.xcom("ask")) == ("success", {"said": 5})
        line = f"Run `{only(store).stream}` waits for the answer."
        assert [each["body"] for each in asked] == [
            f"`KeyError`, see [log](http://airflow/log)\n\n{line}"
        ] * 2
        said = capfd.readouterr()
        assert "XCom not found" not in said.out + said.err

    def test_each_mapped_task_has_its_own_first_question(self, run_dag, store, effects):
        @agent("asker")
        def asker(task: int, ctx: AgentContext) -> list:
            return [
                ctx.interrupt(f"{task}: first?"),
                ctx.interrupt(f"{task}: second?", schema={"type": "string"}),
            ]

        with DAG("asks_mapped") as dag_:
            RunAgentOperator.partial(task_id="ask", agent="asker").expand(task=[1, 2])
        person = Person(dag_.dag_id, *[("Answer", {"answer": "one"})] * 2)
        person.start()

        def answer_elsewhere():
            until = time.monotonic() + 60
            answered = set()
            while time.monotonic() < until and len(answered) < 2:
                for head in store.runs.find_all():
                    if "second?" in head.waiting and head.stream not in answered:
                        store.runs.by_hand.answer(head.stream, "question#2", "two", actor="bob")
                        answered.add(head.stream)
                time.sleep(0.1)

        other = threading.Thread(target=answer_elsewhere)
        other.start()
        run = run_dag(dag_)
        other.join()
        person.join()
        assert run.state == "success"
        assert sorted(each["subject"] for each in person.asked) == ["1: first?", "2: first?"]

    def test_other_schemas_are_answered_as_json(self, run_dag, store, effects):
        self.asking(effects, {"type": "array", "items": {"type": "integer"}})
        run, _ = self.run(run_dag, "asks_json", ("Answer", {"answer": "[1, 2]"}))
        assert run.xcom("ask") == {"said": [1, 2]}

    def test_nobody_answers_in_time(self, run_dag, store, effects):
        # Airflow's scheduler would end the wait; here it is over before the task is parked.
        @agent("asker")
        def asker(task: dict, ctx: AgentContext) -> str:
            try:
                return ctx.interrupt("May I?", deadline=datetime.now(UTC) - timedelta(seconds=1))
            except ReplyTimeout:
                return "alone"

        with DAG("too_late") as dag_:
            RunAgentOperator(task_id="ask", agent="asker", task={})
        assert run_dag(dag_).xcom("ask") == "alone"

    def test_the_deadline_is_the_time_that_the_person_has(self, run_dag, store, effects):
        self.asking(effects, deadline=datetime.now(UTC) + timedelta(minutes=10))
        run, asked = self.run(run_dag, "asks_in_time", ("Answer", {"answer": "yes"}))
        assert run.state == "success"
        left = (asked[0]["timeout"] - datetime.now(UTC)).total_seconds()
        assert 500 < left <= 600

    def test_a_second_question_is_answered_elsewhere(self, run_dag, store, effects):
        @agent("asker")
        def asker(task: dict, ctx: AgentContext) -> list:
            return [ctx.interrupt("First?"), ctx.interrupt("Second?")]

        def answer_elsewhere():
            until = time.monotonic() + 60
            while time.monotonic() < until:
                for head in store.runs.find_all():
                    if "Second?" in head.waiting:
                        store.runs.by_hand.answer(head.stream, "question:question#2", "two", actor="bob")
                        return
                time.sleep(0.1)

        other = threading.Thread(target=answer_elsewhere)
        other.start()
        run, asked = self.run(run_dag, "asks_twice", ("Answer", {"answer": "one"}))
        other.join()
        assert (run.state, run.xcom("ask"), len(asked)) == ("success", ["one", "two"], 1)

    @pytest.mark.parametrize(
        ("option", "fields", "result", "done"),
        [
            ("Skip", {"result": '{"paid": 5}'}, {"paid": 5}, []),
            ("Skip", {"result": ""}, None, []),
            ("Retry", {"result": ""}, "pay", ["pay"]),
        ],
    )
    def test_whether_an_ambiguous_step_took_place_is_asked(
        self, run_dag, store, effects, monkeypatch, option, fields, result, done
    ):
        from airflow_agentic.agents.durable import DurableWork

        class Gone(BaseException):
            """The process is not there any more."""

        told = DurableWork.end
        monkeypatch.setattr(
            DurableWork,
            "end",
            lambda work, error: work._run.close() if isinstance(error, Gone) else told(work, error),
        )
        died = []

        @agent("payer")
        def payer(task: dict, ctx: AgentContext):
            def pay():
                if not died:
                    died.append(1)
                    raise Gone
                return effects.do("pay")

            return {"got": ctx.step("pay", pay, on_ambiguous="ask")}

        with DAG(f"ambiguous_{option}_{len(fields['result'])}") as dag_:
            RunAgentOperator(
                task_id="pay", agent="payer", task={}, retries=1, retry_delay=timedelta(seconds=0)
            )
        person = Person(dag_.dag_id, (option, fields))
        person.start()
        run = run_dag(dag_)
        person.join()
        assert (run.state, run.xcom("pay"), effects) == ("success", {"got": result}, done)
        assert person.asked[0]["options"] == ["Retry", "Skip"]
        assert "'pay' take place" in person.asked[0]["subject"]
        actors = [each.data.get("actor") or each.data.get("by") for each in store.history(only(store).stream)]
        assert "ann" in actors


class TestPersistence:
    def test_off_says_how_to_turn_it_on(self, run_dag, store, tmp_path):
        @agent("payer")
        def payer(task: dict, ctx: AgentContext) -> str:
            return ctx.step("pay", str)

        with DAG("off") as dag_:
            RunAgentOperator(task_id="pay", agent="payer", task={}, persistence="off")
        assert run_dag(dag_).state == "failed"
        assert store.runs.find_all() == []

    @pytest.mark.parametrize("persistence", ["off", None])
    def test_an_agent_without_steps_writes_nothing_but_its_record(
        self, run_dag, store, monkeypatch, persistence
    ):
        """The figure: RunAgentOperator with persistence off makes no write in the store beyond the agent's record."""
        from airflow_agentic.stores.sql.sqlite import SqliteDatabase

        written = []
        send = SqliteDatabase._send

        def counted(database, held, statement, parameters):
            if found := re.match(r"\s*(?:INSERT INTO|UPDATE|DELETE FROM|REPLACE INTO)\s+(\w+)", statement):
                written.append(found[1])
            return send(database, held, statement, parameters)

        monkeypatch.setattr(SqliteDatabase, "_send", counted)

        @agent("plain")
        def plain(task: dict) -> str:
            return "done"

        with DAG("plain") as dag_:
            RunAgentOperator(task_id="work", agent="plain", task={}, persistence=persistence)
        assert run_dag(dag_).state == "success"
        assert written
        assert {table for table in written if not table.startswith("agentic_agent")} == set()

    def test_the_project_file_says_it_and_the_operator_wins(self, run_dag, store, tmp_path, monkeypatch):
        file = tmp_path / "agentic.yaml"
        file.write_text("agents: {payer: {persistence: events}}")
        monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", str(file))

        @agent("payer")
        def payer(task: dict, ctx: AgentContext) -> str:
            return ctx.step("pay", str)

        with DAG("modes") as dag_:
            RunAgentOperator(task_id="by_file", agent="payer", task={})
            RunAgentOperator(task_id="by_dag", agent="payer", task={}, persistence="snapshot")
        assert run_dag(dag_).state == "success"
        modes = {head.stream.rpartition("/")[2]: head.mode for head in store.runs.find_all()}
        assert modes == {"by_file": "events", "by_dag": "snapshot"}

    def test_that_of_messages_is_said_at_the_task_that_handles_them(self, run_dag, store, effects):
        store.bus.send(Message(source="shop", recipient="orders", data=7, id="m"))
        with DAG("handles") as dag_:

            @task.on_message(mailbox="orders", persistence="events")
            def ship(message, ctx):
                ctx.step("ship", effects.do, message.data)

            ship()
        assert run_dag(dag_).state == "success"
        assert (effects, only(store).mode) == ([7], "events")
        with DAG("mistaken"), pytest.raises(ConfigurationError, match=r"no persistence 'event'.*events"):
            task.on_message(task_id="ship", mailbox="orders", persistence="event")(lambda message: None)()

    def test_what_there_is_not_is_refused_when_the_dag_is_parsed(self):
        @agent("payer")
        def payer(task: dict) -> str:
            return ""

        with DAG("mistaken"), pytest.raises(ConfigurationError, match=r"no persistence 'hybird'.*hybrid"):
            RunAgentOperator(task_id="pay", agent="payer", task={}, persistence="hybird")
