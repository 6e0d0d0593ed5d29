"""Messages within a DAG run over XCom alone, in DAGs that really run."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import DAG, dag, get_current_context, task
from airflow.sdk.bases.operator import BaseOperator

from airflow_agentic.agents.context import AgentContext
from airflow_agentic.errors import InvalidMessage, UndecodableMessage
from airflow_agentic.messaging import Kind, Message
from airflow_agentic.xcom.messaging import OUTBOX_KEY, outbox, post, received

AT_ONCE = {"retries": 1, "retry_delay": timedelta(0)}


@pytest.fixture
def seen():
    """What tasks saw, in order; they run in the process of the test."""
    return []


def run_one(run_dag, body, after=("audit", "legal")):
    """Run a DAG in which one task does something and others come after it."""
    with DAG("one") as dag_:
        first = task(body, task_id="scan")()
        for name in after:
            first >> task(lambda: None, task_id=name)()
    return run_dag(dag_)


def message(data=None, **values):
    return Message(**{"source": "scanner", "recipient": "audit", "data": data, **values})


class TestDelivery:
    def test_messages_come_in_the_order_of_tasks_instances_and_words(self, run_dag, seen):
        @dag
        def talk():
            @task
            def scan():
                with outbox() as out:
                    out.send("audit", {"name": "left-pad"}, type="package.found", subject="npm")
                    out.send("legal", "not for the auditor")
                    out.send("audit", {"name": "right-pad"})

            @task
            def count(index):
                with outbox() as out:
                    out.send("audit", index)

            @task
            def audit():
                seen.extend(received())

            @task
            def legal():
                seen.append([each.data for each in received("scan")])

            [count.expand(index=[30, 10, 20]), scan()] >> audit() >> legal()

        run = run_dag(talk())
        assert run.state == "success"
        *said, to_legal = seen
        assert [each.data for each in said] == [30, 10, 20, {"name": "left-pad"}, {"name": "right-pad"}]
        assert to_legal == ["not for the auditor"]
        assert (said[3].source, said[3].recipient, said[3].type, said[3].subject) == (
            "talk.scan",
            "audit",
            "package.found",
            "npm",
        )
        assert {each.correlation_id for each in said} == {f"talk:{run.run_id}"}

    def test_what_a_failed_try_said_is_gone_and_the_next_try_says_it_once(self, run_dag, seen):
        tries = []

        with DAG("retried", default_args=AT_ONCE) as dag_:

            @task
            def scan():
                tries.append(1)
                with outbox() as out:
                    out.send("audit", "the same in each try")
                    out.send("audit", f"try {len(tries)}")
                    seen.append(out.messages[0].id)
                if len(tries) == 1:
                    raise RuntimeError("after it was said")

            @task
            def audit():
                seen.extend((each.id, each.data) for each in received())

            scan() >> audit()

        assert run_dag(dag_).state == "success"
        first, second, (same, text), (_, other) = seen
        assert first == second == same
        assert (text, other) == ("the same in each try", "try 2")

    def test_a_retried_reader_reads_the_same_again(self, run_dag, seen):
        with DAG("again", default_args=AT_ONCE) as dag_:

            @task
            def scan():
                with outbox() as out:
                    out.send("audit", 1)

            @task
            def audit():
                seen.append(received())
                if len(seen) == 1:
                    raise RuntimeError("after they were read")

            scan() >> audit()

        assert run_dag(dag_).state == "success"
        first, second = seen
        assert first == second
        assert [each.data for each in first] == [1]

    def test_nothing_arrives_of_a_task_that_failed_in_the_end(self, run_dag, seen):
        with DAG("failing") as dag_:

            @task
            def bad(number):
                with outbox() as out:
                    out.send("audit", f"bad {number}")
                if number == 1:
                    raise RuntimeError("after it was said")

            @task
            def alone():
                with outbox() as out:
                    out.send("audit", "alone")
                raise RuntimeError("after it was said")

            @task(trigger_rule="all_done")
            def audit():
                seen.extend(each.data for each in received())

            [bad.expand(number=[0, 1, 2]), alone()] >> audit()

        run_dag(dag_)
        assert seen == ["bad 0", "bad 2"]

    def test_a_block_that_fails_says_nothing(self, run_dag):
        def scan():
            def speak():
                with outbox() as out:
                    out.send("audit", 1)
                    raise RuntimeError

            with pytest.raises(RuntimeError):
                speak()

        run = run_one(run_dag, scan)
        assert run.state == "success"
        assert run.xcom("scan", key=OUTBOX_KEY) is None

    def test_the_same_words_twice_are_two_messages_in_one_block_or_two(self, run_dag, seen):
        def scan():
            for _ in range(2):
                with outbox() as out:
                    out.send("audit", "again")
                    out.send("audit", "again")

        with DAG("twice") as dag_:
            task(scan)() >> task(lambda: seen.extend(received()), task_id="audit")()
        assert run_dag(dag_).state == "success"
        assert [each.data for each in seen] == ["again"] * 4
        assert len({each.id for each in seen}) == 4

    def test_one_message_that_two_tasks_pass_on_arrives_once(self, run_dag, seen):
        same = message("once", id="1")

        with DAG("dedup") as dag_:
            both = [task(lambda: post([same, same]), task_id=name)() for name in ("left", "right")]
            both >> task(lambda: seen.extend(received()), task_id="audit")()
        assert run_dag(dag_).state == "success"
        assert seen == [same]

    def test_a_message_to_all_reaches_every_task_that_comes_after(self, run_dag, seen):
        with DAG("broadcast") as dag_:
            said = task(lambda: post([message("all", recipient=None, audience="all")]), task_id="scan")()
            for name in ("audit", "legal"):
                said >> task(lambda: seen.extend(each.data for each in received()), task_id=name)()
        assert run_dag(dag_).state == "success"
        assert seen == ["all", "all"]

    def test_a_message_that_expired_is_left_out(self, run_dag, seen):
        past, future = (datetime.now(UTC) + timedelta(hours=sign) for sign in (-1, 1))

        with DAG("late") as dag_:
            said = task(
                lambda: post([message("late", expires_at=past), message("in time", expires_at=future)]),
                task_id="scan",
            )()
            said >> task(lambda: seen.extend(each.data for each in received()), task_id="audit")()
        assert run_dag(dag_).state == "success"
        assert seen == ["in time"]

    def test_what_an_agent_put_into_its_context_can_be_posted(self, run_dag, seen):
        def scan():
            ctx = AgentContext("scanner")
            ctx.send("audit", {"name": "left-pad"})
            post(ctx.outbox)

        with DAG("agent") as dag_:
            task(scan)() >> task(lambda: seen.extend(received("scan")), task_id="audit")()
        assert run_dag(dag_).state == "success"
        assert [(each.source, each.data) for each in seen] == [("scanner", {"name": "left-pad"})]

    def test_operators_have_the_same_with_their_context(self, run_dag, seen):
        class Scan(BaseOperator):
            def execute(self, context):
                with outbox(context, source="scanner") as out:
                    out.send("audit", 1)

        class Audit(BaseOperator):
            def execute(self, context):
                seen.extend((each.source, each.data) for each in received(context=context))

        with DAG("operators") as dag_:
            Scan(task_id="scan") >> Audit(task_id="audit")
        assert run_dag(dag_).state == "success"
        assert seen == [("scanner", 1)]

    def test_a_task_that_nobody_wrote_to_gets_nothing(self, run_dag, seen):
        with DAG("silent") as dag_:
            (
                task(lambda: seen.append(received()), task_id="first")()
                >> task(lambda: seen.append(received()), task_id="second")()
            )
        assert run_dag(dag_).state == "success"
        assert seen == [[], []]


class TestRefusals:
    def refused(self, run_dag, seen, *messages):
        def scan():
            with pytest.raises(InvalidMessage) as refused:
                post([message("fine"), *messages])
            seen.append(str(refused.value))

        run = run_one(run_dag, scan)
        assert run.state == "success"
        assert run.xcom("scan", key=OUTBOX_KEY) is None, "none of them is posted"
        return seen[0]

    def test_a_task_that_does_not_come_after_is_named_with_the_nearest_that_does(self, run_dag, seen):
        text = self.refused(run_dag, seen, message(recipient="audti"))
        assert text == "no task 'audti' comes after 'scan'; did you mean 'audit'?"

    def test_a_task_cannot_write_to_itself(self, run_dag, seen):
        text = self.refused(run_dag, seen, message(recipient="scan"))
        assert text == "no task 'scan' comes after 'scan'; those that do: audit, legal"

    def test_the_block_refuses_at_the_word_itself(self, run_dag, seen):
        def scan():
            with outbox() as out:
                with pytest.raises(InvalidMessage, match="no task 'nobody'"):
                    out.send("nobody", 1)
                out.send("audit", 2)

        run = run_one(run_dag, scan)
        assert len(run.xcom("scan", key=OUTBOX_KEY)["messages"]) == 1

    @pytest.mark.parametrize(
        ("values", "text"),
        [
            ({"recipient": None, "topic": "orders.new"}, "a notification for topic orders.new needs a store"),
            ({"recipient": None, "audience": "role:clerk"}, "for audience role:clerk needs a store"),
            ({"kind": Kind.REQUEST, "reply_to": "scan"}, "a request for audit needs a store"),
            ({"kind": Kind.HEARTBEAT, "recipient": None}, "a heartbeat for nobody needs a store"),
        ],
    )
    def test_what_needs_a_store_is_refused(self, run_dag, seen, values, text):
        assert text in self.refused(run_dag, seen, message(**values))

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (
                lambda box: edit(box, "left-pad", "left-bad"),
                "message 1 .* is not what was sent: somebody changed it",
            ),
            (lambda box: box["messages"][0].pop("sha256"), "is no outbox"),
            (lambda box: box.pop("messages"), "is no outbox"),
            (lambda box: box.update(messages=7), "is no outbox"),
        ],
    )
    def test_an_outbox_that_was_changed_is_not_believed(self, run_dag, seen, change, text):
        def scan():
            post([message("left-pad", id="1")])
            ti = get_current_context()["ti"]
            box = copy.deepcopy(ti.xcom_pull("scan", key=OUTBOX_KEY, map_indexes=-1))
            change(box)
            ti.xcom_push(OUTBOX_KEY, box)

        def audit():
            with pytest.raises(UndecodableMessage, match=f"(?s){text}.*clear that task"):
                received()
            seen.append("refused")

        with DAG("changed") as dag_:
            task(scan)() >> task(audit)()
        assert run_dag(dag_).state == "success"
        assert seen == ["refused"]

    def test_what_is_no_outbox_at_all_is_told(self, run_dag, seen):
        def scan():
            get_current_context()["ti"].xcom_push(OUTBOX_KEY, "a text")

        def audit():
            with pytest.raises(UndecodableMessage, match="of task 'scan' is no outbox"):
                received()
            seen.append("refused")

        with DAG("foreign") as dag_:
            task(scan)() >> task(audit)()
        assert run_dag(dag_).state == "success"
        assert seen == ["refused"]


def edit(box, old, new):
    entry = box["messages"][0]
    entry["envelope"] = entry["envelope"].replace(old, new)
    assert json.loads(entry["envelope"])["data"] == new
