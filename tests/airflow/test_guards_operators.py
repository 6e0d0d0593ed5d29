"""Agents behind guards, in DAGs that really run: what waits, what falls back, what fails, and what it leaves behind."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import TaskDeferred

from airflow_agentic.agents import AgentContext, agent
from airflow_agentic.errors import (
    BudgetExceeded,
    CircuitOpen,
    ConfigurationError,
    InvalidResult,
    ServiceError,
    ServiceThrottled,
    StoreUnavailable,
)
from airflow_agentic.messaging import Kind, Message
from airflow_agentic.operators.agents import RunAgentOperator
from airflow_agentic.resilience import (
    Breaker,
    BreakerState,
    Budget,
    Bulkhead,
    Fallback,
    Policy,
    RateLimit,
    Retry,
)
from airflow_agentic.retry_policy import AgenticRetryPolicy
from airflow_agentic.sensors.resilience import CircuitSensor

QUICK = Breaker(minimum_calls=2, window_size=4, open_seconds=1.5, half_open_calls=1)


class Service:
    """What an agent asks; it is down as long as a test says."""

    def __init__(self) -> None:
        self.down = False
        self.calls = 0

    def ask(self) -> str:
        self.calls += 1
        if self.down:
            raise ServiceError("down")
        return "good"


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def project(tmp_path, monkeypatch):
    def written(text):
        file = tmp_path / "agentic.yaml"
        file.write_text(text)
        monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", str(file))

    return written


def asking(service, name="asker"):
    @agent(name)
    def asker(task: dict) -> dict:
        return {"said": service.ask()}

    return asker


class TestWaiting:
    def test_tasks_wait_in_the_triggerer_until_the_breaker_lets_them_go(self, run_dag, store, service):
        asking(service)
        service.down = True
        policy = Policy(breaker=QUICK, retry=Retry(max_attempts=5, base_seconds=0.05, max_seconds=0.05))
        with DAG("waits") as dag_:
            RunAgentOperator(task_id="ask", agent="asker", task={}, policy=policy)
        mended = threading.Timer(3, lambda: setattr(service, "down", False))
        mended.start()
        run = run_dag(dag_)
        mended.join()
        assert run.state == "success"
        assert run.xcom("ask") == {"said": "good"}
        assert run.task("ask").try_number == 1
        assert store.breaker("agent:asker").state is BreakerState.CLOSED
        assert run.xcom("ask", key="agentic_outcome")["degraded"] is False

    def test_the_trigger_knows_the_breaker_and_a_reset_ends_the_wait(self, run_dag, store, service):
        asking(service)
        store.breaker("agent:asker").trip(reason="a pause", actor="on-call")
        with DAG("tripped") as dag_:
            RunAgentOperator(task_id="ask", agent="asker", task={}, policy=Policy(breaker=QUICK))
        reset = threading.Timer(
            2, lambda: store.breaker("agent:asker").reset(reason="go on", actor="on-call")
        )
        reset.start()
        began = time.monotonic()
        run = run_dag(dag_)
        reset.join()
        assert (run.state, service.calls) == ("success", 1)
        assert time.monotonic() - began >= 2

    def test_a_task_over_the_rate_waits_for_a_turn_of_its_own(self, run_dag, store, service):
        asking(service)
        policy = Policy(limits=RateLimit(rate=1, per_seconds=1.5))
        with DAG("rated") as dag_:
            RunAgentOperator.partial(task_id="ask", agent="asker", policy=policy).expand(task=[{}, {}, {}])
        began = time.monotonic()
        run = run_dag(dag_)
        assert (run.state, service.calls) == ("success", 3)
        assert time.monotonic() - began >= 3

    def test_messages_are_given_back_uncounted_while_a_breaker_is_open(self, run_dag, store, service):
        asking(service)
        store.breaker("agent:asker").trip(reason="a pause", actor="on-call")
        store.bus.send(Message(source="test", recipient="asker", data={}))
        with DAG("mailed") as dag_:
            operator = RunAgentOperator(
                task_id="work", agent="asker", mailbox="asker", policy=Policy(breaker=QUICK)
            )
        reset = threading.Timer(
            1, lambda: store.breaker("agent:asker").reset(reason="go on", actor="on-call")
        )
        reset.start()
        run = run_dag(dag_)
        reset.join()
        assert (operator.mailbox, run.state) == ("asker", "success")
        [record] = store.bus.trace(store.bus.find(_of("asker"))[0].message.id)
        assert (str(record.state), record.attempts, record.history) == ("done", 1, ())

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            (Policy(breaker=QUICK, when_refused="fail"), None),
            (
                Policy(
                    breaker=QUICK, when_refused="fallback", fallback=Fallback(default={"said": "nothing"})
                ),
                "default",
            ),
        ],
    )
    def test_or_it_fails_or_falls_back_as_its_policy_says(self, run_dag, store, service, policy, expected):
        asking(service)
        store.breaker("agent:asker").trip(reason="a pause", actor="on-call")
        with DAG("refused") as dag_:
            RunAgentOperator(task_id="ask", agent="asker", task={}, policy=policy)
        if expected is None:
            assert run_dag(dag_).state == "failed"
        else:
            run = run_dag(dag_)
            assert run.xcom("ask")["degraded"] is True
            assert run.xcom("ask", key="agentic_outcome")["source"] == expected
        assert service.calls == 0

    def test_a_budget_that_is_used_up_defers_to_its_next_period(self, store, service):
        asking(service)
        policy = Policy(budget=Budget(calls=1, period="day"))
        with DAG("spent"):
            operator = RunAgentOperator(task_id="ask", agent="asker", task={}, policy=policy)
        with store.guard(policy, "agent:asker", _subject()).attempt():
            pass
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute(_context(operator))
        moment = datetime.fromisoformat(deferral.value.trigger.serialize()[1]["retry_at"])
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).date()
        assert (moment.date(), moment.hour, moment.minute) == (tomorrow, 0, 0)

    def test_a_full_bulkhead_is_asked_again_less_and_less_often(self, store, service):
        asking(service)
        policy = Policy(bulkhead=Bulkhead(max_concurrent=1))
        with DAG("full"):
            operator = RunAgentOperator(task_id="ask", agent="asker", task={}, policy=policy)
        event, waits = {}, []
        with store.guard(policy, "agent:asker").attempt():
            for _ in range(5):
                with pytest.raises(TaskDeferred) as deferral:
                    operator.resume(_context(operator), event)
                said = deferral.value.trigger.serialize()[1]
                event = {"carried": said["carried"]}
                waits.append((datetime.fromisoformat(said["retry_at"]) - datetime.now(UTC)).total_seconds())
        assert (waits[-1] > 4, waits[0] < 1.1) == (True, True)


class TestFallingBack:
    def test_other_agents_then_the_last_good_answer_then_the_default(self, run_dag, store, service, project):
        asking(service)

        @agent("helper")
        def helper(task: dict) -> dict:
            if task["n"] > 0:
                raise ServiceError("not today")
            return {"said": "helped"}

        fallback = Fallback(agents=("helper",), cached_seconds=600, default={"said": "nothing"})
        policy = Policy(fallback=fallback)

        def run(name, n):
            with DAG(name) as dag_:
                RunAgentOperator(task_id="ask", agent="asker", task={"n": n}, policy=policy)
            done = run_dag(dag_)
            assert done.state == "success"
            outcome = done.xcom("ask", key="agentic_outcome")
            return done.xcom("ask"), outcome["source"], outcome

        assert run("good", 1)[1] == "itself"
        service.down = True
        assert run("by_another", 0)[:2] == (
            {"said": "helped", "degraded": True, "degraded_reason": "[transient] ServiceError: down"}, "agent:helper",
        )  # fmt: skip
        result, source, outcome = run("cached", 1)
        assert (result["said"], result["degraded"], source) == ("good", True, "cached")
        assert 0 <= outcome["age_seconds"] < 60
        result, source, _ = run("default", 2)
        assert (result["said"], source) == ("nothing", "default")

    def test_downstream_can_branch_on_it(self, run_dag, store, service):
        asking(service)
        service.down = True
        policy = Policy(fallback=Fallback(default=["no map"]))

        @task.branch
        def choose(ti=None):
            degraded = ti.xcom_pull(task_ids="ask", key="agentic_outcome")["degraded"]
            return "check" if degraded else "publish"

        with DAG("branches") as dag_:
            ask = RunAgentOperator(task_id="ask", agent="asker", task={}, policy=policy)

            @task
            def check():
                return "checked"

            @task
            def publish():
                return "published"

            ask >> choose() >> [check(), publish()]
        run = run_dag(dag_)
        # A list has no room for more; the outcome has.
        assert run.xcom("ask") == ["no map"]
        assert (str(run.task("check").state), str(run.task("publish").state)) == ("success", "skipped")

    def test_a_request_is_answered_by_the_fallback(self, run_dag, store, service):
        asking(service)
        service.down = True
        policy = Policy(fallback=Fallback(default={"said": "nothing"}))
        question = Message(
            source="test", recipient="asker", kind=Kind.REQUEST, reply_to="answers", data={},
            expires_at=datetime.now(UTC) + timedelta(seconds=60),
        )  # fmt: skip
        store.bus.send(question)
        with DAG("answers") as dag_:
            RunAgentOperator(task_id="work", agent="asker", mailbox="asker", policy=policy)
        assert run_dag(dag_).state == "success"
        [reply] = store.bus.receive("answers")
        assert (reply.message.kind, reply.message.data["degraded"]) == (Kind.RESPONSE, True)

    def test_what_a_failed_try_sent_does_not_leave(self, run_dag, store):
        tries = []

        @agent("sender")
        def sender(task: dict, ctx: AgentContext) -> str:
            tries.append(1)
            ctx.send("elsewhere", {"try": len(tries)})
            if len(tries) < 3:
                raise ServiceError("not yet")
            return "sent"

        with DAG("sends") as dag_:
            policy = Policy(retry=Retry(max_attempts=3, base_seconds=0.01))
            RunAgentOperator(task_id="send", agent="sender", task={}, policy=policy)
        assert run_dag(dag_).state == "success"
        assert [each.message.data for each in store.bus.receive("elsewhere", max_messages=9)] == [{"try": 3}]


class TestInside:
    def test_an_agent_guards_its_calls_by_policies_of_the_project(self, run_dag, store, service, project):
        project(
            "policies: {tool: {breaker: {minimum_calls: 2, window_size: 4, open_seconds: 1.5, half_open_calls: 1}}}"
        )
        service.down = True

        @agent("user-of-tools")
        def user_of_tools(task: dict, ctx: AgentContext) -> str:
            return ctx.call(service.ask, policy="tool", key="tool:search")

        guard = store.guard(Policy(breaker=QUICK), "tool:search")
        for _ in range(2):
            with pytest.raises(ServiceError):
                guard.call(service.ask)
        service.down = False
        with DAG("inside") as dag_:
            RunAgentOperator(task_id="work", agent="user-of-tools", task={})
        run = run_dag(dag_)
        # The refusal of a tool's breaker makes the task wait as one of its own would.
        assert (run.state, run.xcom("work"), run.task("work").try_number) == ("success", "good", 1)
        assert service.calls == 3

    def test_an_unknown_policy_is_refused_when_the_dag_is_parsed(self, project, service):
        asking(service)
        project("policies: {patient: {}}")
        with DAG("unknown"), pytest.raises(ConfigurationError, match=r"there is no policy 'patent'.*patient"):
            RunAgentOperator(task_id="ask", agent="asker", task={}, policy="patent")

    def test_a_request_brings_its_deadline_and_what_it_leads_to_has_it_too(self, run_dag, store):
        left = []

        @agent("answering")
        def answering(task: dict, ctx: AgentContext) -> str:
            left.append(ctx.remaining)
            ctx.send("oracle", {}, kind=Kind.REQUEST, reply_to="answers")
            return "done"

        until = datetime.now(UTC) + timedelta(seconds=30)
        store.bus.send(
            Message(
                source="t", recipient="answering", kind=Kind.REQUEST, reply_to="r", data={}, expires_at=until
            )
        )
        with DAG("deadlines") as dag_:
            RunAgentOperator(task_id="work", agent="answering", mailbox="answering")
        assert run_dag(dag_).state == "success"
        assert 0 < left[0] <= 30
        [asked] = store.bus.receive("oracle")
        assert abs((asked.message.expires_at - until).total_seconds()) < 2

    def test_killing_the_task_reaches_a_loop_that_checks(self, store):
        begun, ended = threading.Event(), []

        @agent("looper")
        def looper(task: dict, ctx: AgentContext) -> str:
            begun.set()
            try:
                while True:
                    ctx.check()
                    time.sleep(0.01)
            except Exception as error:
                ended.append(type(error).__name__)
                raise

        with DAG("killed"):
            operator = RunAgentOperator(task_id="loop", agent="looper", task={})

        def work():
            with pytest.raises(Exception, match="killed"):
                operator.execute(_context(operator))

        worker = threading.Thread(target=work)
        worker.start()
        assert begun.wait(30)
        operator.on_kill()
        worker.join(10)
        assert ended == ["WorkCancelled"]


class TestSensor:
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_it_waits_until_the_breaker_is_closed(self, run_dag, store, deferrable):
        store.breaker("conn:x").trip(reason="a pause", actor="on-call")
        with DAG("sensing") as dag_:
            CircuitSensor(task_id="wait", key="conn:x", deferrable=deferrable, poke_interval=0.1, timeout=60)
        reset = threading.Timer(1, lambda: store.breaker("conn:x").reset(reason="go on", actor="on-call"))
        reset.start()
        run = run_dag(dag_)
        reset.join()
        seen = run.xcom("wait")
        assert (seen["key"], seen["state"], seen["reason"]) == ("conn:x", "closed", "go on")

    def test_what_it_waits_for_is_checked_when_the_dag_is_parsed(self):
        with DAG("mistaken"), pytest.raises(ConfigurationError, match="passable"):
            CircuitSensor(task_id="wait", key="conn:x", until="half")


class TestRetryPolicy:
    def decide(self, error, **options):
        policy = AgenticRetryPolicy.deserialize(AgenticRetryPolicy(**options).serialize())
        return policy.evaluate(error, 1, 3)

    @pytest.mark.parametrize(
        ("error", "action", "seconds"),
        [
            (ServiceError("503"), RetryAction.RETRY, None),
            (ServiceError("503", 503, 12.0), RetryAction.RETRY, 12),
            (ServiceThrottled("429"), RetryAction.RETRY, 30),
            (ServiceThrottled("429", 429, 99_999.0), RetryAction.FAIL, None),
            (StoreUnavailable("away"), RetryAction.RETRY, None),
            (InvalidResult("no json"), RetryAction.FAIL, None),
            (ConfigurationError("a typing error"), RetryAction.FAIL, None),
            (TimeoutError("late"), RetryAction.RETRY, None),
            (CircuitOpen("open", "conn:x"), RetryAction.FAIL, None),
        ],
    )
    def test_the_category_decides(self, project, error, action, seconds):
        decision = self.decide(error)
        assert decision.action is action
        assert decision.retry_delay == (None if seconds is None else timedelta(seconds=seconds))
        assert decision.reason.startswith("[")

    def test_an_open_breaker_is_tried_again_at_its_next_probe(self):
        decision = self.decide(CircuitOpen("open", "conn:x", datetime.now(UTC) + timedelta(seconds=100)))
        assert decision.action is RetryAction.RETRY
        assert 99 < decision.retry_delay.total_seconds() <= 101

    def test_a_budget_that_comes_back_too_late_fails(self):
        tomorrow = datetime.now(UTC) + timedelta(hours=20)
        decision = self.decide(BudgetExceeded("spent", "b", tomorrow))
        assert (decision.action, "the budget lets nothing go" in decision.reason) == (RetryAction.FAIL, True)

    def test_the_project_says_what_failures_mean(self, project):
        project("failures: [{error: ValueError, category: permanent}]")
        assert self.decide(ValueError("x")).action is RetryAction.FAIL


def _of(mailbox):
    from airflow_agentic.messaging.ports import DeliveryQuery

    return DeliveryQuery(mailbox=mailbox)


def _subject():
    from airflow_agentic.resilience import Subject

    return Subject(agent="asker")


def _context(operator):
    from types import SimpleNamespace

    pushed = {}
    ti = SimpleNamespace(
        dag_id="d", run_id="r", task_id=operator.task_id, map_index=-1, max_tries=0, try_number=1, task=operator,
        xcom_push=pushed.setdefault, xcom_pull=lambda **_: None,
    )  # fmt: skip
    return {"ti": ti, "dag": SimpleNamespace(params={}), "dag_run": SimpleNamespace(conf={})}
