"""Supervisors, handing over and debates: turns that are durable steps of one task."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from airflow.sdk import DAG, task_group

from airflow_agentic.agents import AgentContext, agent
from airflow_agentic.agents.registry import registry
from airflow_agentic.errors import ConfigurationError, InvalidFilter, ServiceError, UnknownAgent
from airflow_agentic.persistence.ports import RunStatus
from airflow_agentic.resilience import Breaker, Policy
from airflow_agentic.workflows import debate, handoff, supervise

RETRIED = {"retries": 10, "retry_delay": timedelta(0)}


@pytest.fixture
def asked():
    """Who was asked in which round."""
    return []


@pytest.fixture(autouse=True)
def own_agents(monkeypatch, asked):
    monkeypatch.setattr(registry, "_known", {})

    def speaker(name):
        @agent(name)
        def speak(task: dict, ctx: AgentContext) -> dict:
            asked.append((name, task["round"]))
            ctx.send("minutes", {"by": name})
            return {"claim": f"{name} {task['round']}", "heard": len(task["turns"])}

    for name in ("ann", "ben", "cem"):
        speaker(name)

    @agent("judge")
    def judge(task: dict) -> dict:
        return {
            "turns": len(task["turns"]),
            "last": task["turns"][-1]["answer"]["claim"],
            "rounds": task["rounds"],
        }


class TestDebate:
    def test_each_speaks_in_each_round_and_knows_what_was_said(self, run_dag, store, asked):
        with DAG("talk") as dag:
            flow = debate("debate", ["ann", "ben", "cem"], judge="judge", task="more tea?", rounds=2)
        run = run_dag(dag)
        assert run.state == "success"
        assert asked == [(name, number) for number in (1, 2) for name in ("ann", "ben", "cem")]
        assert run.xcom(flow.output.operator.task_id) == {"turns": 6, "last": "cem 2", "rounds": 2}
        assert [turn["answer"]["heard"] for turn in run.xcom("debate.rounds")["turns"]] == [0, 1, 2, 3, 4, 5]
        assert len(store.bus.receive("minutes", max_messages=20)) == 6

    def test_it_ends_when_its_condition_holds_after_a_round(self, run_dag, asked):
        with DAG("agreed") as dag:
            debate(
                "debate",
                ["ann", "ben"],
                judge="judge",
                task="tea?",
                rounds=9,
                until='output["ann"].claim == "ann 2" && output["ben"].heard > 0',
            )
        run = run_dag(dag)
        assert run.xcom("debate.judge") == {"turns": 4, "last": "ben 2", "rounds": 2}

    def test_what_was_said_is_not_asked_again_after_failures(self, run_dag, store, asked):
        failures = {("tired", 2), ("tired", 3)}

        @agent("tired")
        def tired(task: dict) -> dict:
            if (who := ("tired", task["round"])) in failures:
                failures.discard(who)
                raise ServiceError("not now")
            asked.append(who)
            return {"claim": "so so"}

        with DAG("tiring") as dag:
            debate("debate", ["ann", "tired"], judge="judge", task="tea?", rounds=3, default_args=RETRIED)
        run = run_dag(dag)
        assert (run.state, run.task("debate.rounds").try_number) == ("success", 3)
        assert asked == [(name, number) for number in (1, 2, 3) for name in ("ann", "tired")]
        head = store.runs.find(f"debate/tiring/{run.run_id}/debate.rounds")
        assert (head.status, head.done, head.total) == (RunStatus.FINISHED, 6, 6)
        assert len(store.bus.receive("minutes", max_messages=20)) == 3

    def test_a_guard_that_refuses_a_turn_makes_the_task_wait_without_a_retry(self, run_dag, store, asked):
        store.breaker("agent:ben").trip(reason="a pause", actor="on-call")
        policy = Policy(breaker=Breaker(minimum_calls=2, window_size=4, open_seconds=60))
        with DAG("guarded") as dag:
            debate("debate", ["ann", {"agent": "ben", "policy": policy}], judge="judge", task="?", rounds=1)
        reset = threading.Timer(2, lambda: store.breaker("agent:ben").reset(reason="go on", actor="on-call"))
        reset.start()
        run = run_dag(dag)
        reset.join()
        assert (run.state, run.task("debate.rounds").try_number) == ("success", 1)
        assert asked == [("ann", 1), ("ben", 1)]

    def test_mapped_debates_are_runs_of_their_own(self, run_dag, asked):
        with DAG("many") as dag:

            @task_group
            def each(question):
                return debate("debate", ["ann", "ben"], judge="judge", task=question, rounds=1).output

            each.expand(question=["tea?", "coffee?"])
        run = run_dag(dag)
        assert (run.state, len(asked)) == ("success", 4)
        assert run.xcom("each.debate.rounds", map_index=1)["task"] == "coffee?"

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            ({"rounds": 0}, r"rounds=0: give 1 or more"),
            ({"rounds": True}, r"rounds=True: give 1 or more"),
            ({"agents": ["ann"]}, "at least 2 of agents"),
            ({"agents": ["ann", "ann"]}, "'ann' is there twice"),
            ({"agents": ["ann", {"agent": "ben", "mailbox": "ben"}]}, "not mailbox"),
            ({"agents": ["ann", "{{ params.other }}"]}, "cannot take turns"),
        ],
    )
    def test_what_cannot_work_is_refused(self, arguments, why):
        given = {"agents": ["ann", "ben"], **arguments}
        with DAG("bad"), pytest.raises(ConfigurationError, match=why):
            debate("debate", given.pop("agents"), judge="judge", task="?", **given)

    def test_unknown_agents_and_conditions_are_refused(self):
        with DAG("bad"):
            with pytest.raises(UnknownAgent):
                debate("one", ["ann", "bne"], judge="judge", task="?")
            with pytest.raises(UnknownAgent):
                debate("two", ["ann", "ben"], judge="jugde", task="?")
            with pytest.raises(InvalidFilter):
                debate("three", ["ann", "ben"], judge="judge", task="?", until="output.")


class TestSupervise:
    @pytest.fixture(autouse=True)
    def team(self):
        @agent("boss")
        def boss(task: dict) -> dict:
            plan = ["finder", "writer"]
            if len(task["turns"]) < len(task["task"]["steps"]):
                return {
                    "next": task["task"]["steps"][len(task["turns"])],
                    "task": {"turn": len(task["turns"])},
                }
            assert task["workers"] == plan
            return {"result": [turn["answer"] for turn in task["turns"]]}

        @agent("finder")
        def find(task: dict) -> str:
            return f"found {task['turn']}"

        @agent("writer")
        def write(task: dict) -> str:
            return f"wrote {task['turn']}"

    def run(self, run_dag, steps, **arguments):
        with DAG("team") as dag:
            supervise(
                "team", supervisor="boss", workers=["finder", "writer"], task={"steps": steps}, **arguments
            )
        return run_dag(dag)

    def test_the_supervisor_says_who_works_next_and_what_came_of_it(self, run_dag):
        run = self.run(run_dag, ["finder", "writer", "finder"])
        assert (run.state, run.xcom("team.supervise")) == ("success", ["found 0", "wrote 1", "found 2"])

    def test_its_rounds_are_bounded(self, run_dag):
        assert self.run(run_dag, ["finder"] * 2, rounds=2).state == "success"
        assert self.run(run_dag, ["finder"] * 3, rounds=2).state == "failed"

    def test_who_is_no_worker_fails_it(self, run_dag):
        assert self.run(run_dag, ["nobody"]).state == "failed"

    def test_nobody_to_work_and_no_rounds_are_refused(self):
        with DAG("bad"):
            with pytest.raises(ConfigurationError, match="at least 1 of workers"):
                supervise("one", supervisor="boss", workers=[], task={})
            with pytest.raises(ConfigurationError, match="rounds=0"):
                supervise("two", supervisor="boss", workers=["finder"], task={}, rounds=0)
            with pytest.raises(ConfigurationError, match="'boss' is there twice"):
                supervise("three", supervisor="boss", workers=["boss"], task={})


class TestHandoff:
    @pytest.fixture(autouse=True)
    def desks(self):
        @agent("desk")
        def desk(task: dict) -> dict:
            if task["about"] == "money":
                return {"handoff": "billing"}
            return {"handoff": "tech", "task": {"about": "wires", "loop": task.get("loop", False)}}

        @agent("billing")
        def billing(task: dict) -> str:
            return f"billed {task['about']}"

        @agent("tech")
        def tech(task: dict) -> dict:
            return {"handoff": "desk", "task": task} if task["loop"] else {"fixed": task["about"]}

    def run(self, run_dag, task, **arguments):
        with DAG("desks") as dag:
            handoff("call", ["desk", "billing", "tech"], task=task, **arguments)
        return run_dag(dag)

    def test_an_agent_hands_over_with_the_same_task_or_another_one(self, run_dag):
        money = self.run(run_dag, {"about": "money"}).xcom("call.handoff")
        assert money == {"agent": "billing", "result": "billed money", "path": ["desk", "billing"]}
        assert self.run(run_dag, {"about": "?"}).xcom("call.handoff")["result"] == {"fixed": "wires"}

    def test_it_is_not_handed_over_for_ever(self, run_dag):
        assert self.run(run_dag, {"about": "?", "loop": True}, hops=4).state == "failed"

    def test_no_hops_and_a_single_agent_are_refused(self):
        with DAG("bad"):
            with pytest.raises(ConfigurationError, match="hops=0"):
                handoff("one", ["desk", "tech"], task={}, hops=0)
            with pytest.raises(ConfigurationError, match="at least 2 of agents"):
                handoff("two", ["desk"], task={})


def test_the_rules_of_the_project_file_hold_for_every_agent_of_a_talk(tmp_path, monkeypatch):
    from airflow.exceptions import AirflowClusterPolicyViolation

    from airflow_agentic.cluster_policy import task_policy

    file = tmp_path / "agentic.yaml"
    file.write_text("agents: {ann: {}}\nrules: {declared_agents_only: true}\n")
    monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", str(file))
    with DAG("ruled") as dag:
        debate("debate", ["ann", "ben"], judge="ann", task="?")
    task_policy(dag.get_task("debate.judge"))
    with pytest.raises(AirflowClusterPolicyViolation, match="declares no agent 'ben'") as refused:
        task_policy(dag.get_task("debate.rounds"))
    assert "'ann'" not in str(refused.value)


def test_an_agent_of_a_debate_may_have_durable_steps_of_its_own(run_dag, asked):
    done, tries = [], []

    @agent("careful")
    def careful(task: dict, ctx: AgentContext) -> dict:
        ctx.step("look", done.append, task["round"])
        tries.append(task["round"])
        if len(tries) == 1:
            raise ServiceError("after the step")
        return {"claim": f"careful {task['round']}"}

    with DAG("nested") as dag:
        debate("debate", ["ann", "careful"], judge="judge", task="?", rounds=2, default_args=RETRIED)
    run = run_dag(dag)
    assert (run.state, done, tries) == ("success", [1, 2], [1, 1, 2])
    assert asked == [("ann", 1), ("ann", 2)]


def test_persistence_is_said_of_a_whole_workflow(run_dag, store):
    with DAG("kept") as dag:
        debate("debate", ["ann", "ben"], judge="judge", task="?", rounds=1, persistence="events")
    assert dag.get_task("debate.judge").persistence == "events"
    run = run_dag(dag)
    assert store.runs.find(f"debate/kept/{run.run_id}/debate.rounds").mode == "events"


def test_turns_that_are_not_kept_are_refused():
    with (
        DAG("bad"),
        pytest.raises(ConfigurationError, match="cannot be kept as 'off'; there are: hybrid, events"),
    ):
        debate("debate", ["ann", "ben"], judge="judge", task="?", persistence="off")
