"""Patterns of agents as task groups, in DAGs that really run."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, chain, task, task_group
from airflow.sdk.exceptions import AirflowSkipException

from airflow_agentic.agents import agent
from airflow_agentic.agents.registry import registry
from airflow_agentic.errors import ConfigurationError, InvalidFilter, UnknownAgent
from airflow_agentic.resilience import Policy, Retry
from airflow_agentic.workflows import Workflow, map_reduce, parallel, route, sequence
from airflow_agentic.workflows.parallels import GatherOperator


@pytest.fixture(autouse=True)
def own_agents(monkeypatch):
    monkeypatch.setattr(registry, "_known", {})

    @agent("doubler")
    def double(task: int) -> int:
        return 2 * task

    @agent("adder")
    def add(task: int) -> int:
        return task + 1

    @agent("teller")
    def tell(task: dict) -> dict:
        return {"told": task}

    @agent("summer")
    def total(task: list) -> int:
        return sum(task)

    @agent("breaker")
    def fail(task: object) -> None:
        raise ValueError("broken")

    @agent("silent")
    def nothing(task: object) -> None:
        return None


class TestSequence:
    def test_each_agent_gets_what_the_one_before_it_made(self, run_dag):
        with DAG("seq") as dag:
            flow = sequence("work", ["doubler", "adder", "doubler"], task=3)
        run = run_dag(dag)
        assert isinstance(flow, Workflow)
        assert (run.state, run.xcom("work.doubler_2")) == ("success", 14)

    def test_tasks_and_functions_take_part_and_the_output_goes_on(self, run_dag):
        @task
        def square(value):
            return value * value

        with DAG("mixed") as dag:
            flow = sequence(
                "work", ["adder", square, lambda got: sequence("inner", ["doubler"], task=got)], task=2
            )
            square.override(task_id="after")(flow.output)
        run = run_dag(dag)
        assert (run.state, run.xcom("after")) == ("success", 324)

    def test_a_map_gives_the_arguments_of_its_operator(self, run_dag):
        with DAG("args") as dag:
            sequence(
                "work",
                ["doubler", {"agent": "adder", "task": 40, "task_id": "last", "retries": 2}],
                task=1,
                policy=Policy(retry=Retry(max_attempts=2)),
            )
        assert dag.get_task("work.last").retries == 2
        assert dag.get_task("work.doubler").policy.retry.max_attempts == 2
        assert run_dag(dag).xcom("work.last") == 41

    def test_a_task_before_and_after_are_joined_to_its_ends(self):
        with DAG("ends") as dag:
            flow = sequence("work", ["doubler", "adder"], task=1)
            chain(EmptyOperator(task_id="before"), flow, EmptyOperator(task_id="after"))
        assert dag.get_task("work.doubler").upstream_task_ids == {"before"}
        assert dag.get_task("after").upstream_task_ids == {"work.adder"}

    def test_nobody_and_a_text_are_refused(self):
        with DAG("bad"):
            with pytest.raises(ConfigurationError, match="at least 1 of members, and has 0"):
                sequence("none", [])
            with pytest.raises(ConfigurationError, match=r"must be a list, as in \['doubler'\]"):
                sequence("text", "doubler")

    def test_who_does_not_exist_is_refused_with_the_nearest_name(self):
        with DAG("bad"), pytest.raises(UnknownAgent, match="Did you mean 'doubler'"):
            sequence("work", ["dubler"], task=1)

    def test_what_makes_no_task_is_refused(self):
        with DAG("bad"):
            with pytest.raises(ConfigurationError, match=r"must return a task.*returned int"):
                sequence("one", [lambda _: 7])
            with pytest.raises(ConfigurationError, match="7 cannot be a part of workflow 'two'"):
                sequence("two", [7])
            with pytest.raises(ConfigurationError, match="names no agent"):
                sequence("three", [{"task": 1}])


class TestParallel:
    def test_all_work_on_one_task_and_the_results_come_by_name(self, run_dag):
        with DAG("side") as dag:
            flow = parallel("vote", ["doubler", "adder", "silent"], task=5)
        run = run_dag(dag)
        assert run.state == "success"
        assert run.xcom(flow.output.operator.task_id) == {"doubler": 10, "adder": 6, "silent": None}

    def test_one_failure_fails_it_when_all_are_needed_and_the_others_are_waited_for(self, run_dag):
        with DAG("all") as dag:
            parallel("vote", ["doubler", "breaker"], task=5) >> EmptyOperator(task_id="after")
        run = run_dag(dag)
        states = [run.task(each).state for each in ("vote.doubler", "vote.gather", "after")]
        assert (run.state, states) == ("failed", ["success", "failed", "upstream_failed"])

    def test_a_quorum_is_enough(self, run_dag):
        with DAG("quorum") as dag:
            parallel("vote", ["doubler", "breaker", "adder"], task=5, quorum=2) >> EmptyOperator(
                task_id="after"
            )
        run = run_dag(dag)
        assert run.xcom("vote.gather") == {"doubler": 10, "adder": 6}
        assert (run.state, run.task("after").state) == ("success", "success")

    def test_too_few_name_those_that_failed(self, run_dag, caplog):
        with DAG("few") as dag:
            parallel(
                "vote", ["doubler", "breaker", {"agent": "breaker", "task_id": "other"}], task=5, quorum=2
            )
        run = run_dag(dag)
        assert (run.state, run.task("vote.gather").state) == ("failed", "failed")

    def test_fail_fast_does_not_wait_for_the_others(self, run_dag, monkeypatch):
        monkeypatch.setattr(GatherOperator, "look_again", timedelta(milliseconds=1))
        order = []

        @agent("slow")
        def slow(task: int) -> int:
            order.append("slow")
            return task

        def noted(value):
            @task(task_id="noted", trigger_rule="all_done")
            def note():
                order.append("noted")

            return note()

        before = [{"agent": "doubler", "task_id": f"before_{n}"} for n in range(8)]
        with DAG("fast") as dag:
            flow = parallel(
                "vote",
                ["doubler", "adder", lambda got: sequence("late", [*before, "slow"], task=got)],
                task=5,
                quorum=2,
                fail_fast=True,
            )
            flow >> noted(None)
        run = run_dag(dag)
        assert (run.state, order) == ("success", ["noted", "slow"])
        assert run.xcom("vote.gather") == {"doubler": 10, "adder": 6}

    def test_fail_fast_fails_at_the_first_failure_that_is_too_much(self, run_dag, monkeypatch):
        monkeypatch.setattr(GatherOperator, "look_again", timedelta(seconds=0.1))
        with DAG("fails_fast") as dag:
            parallel(
                "vote",
                ["breaker", {"agent": "breaker", "task_id": "too"}, "adder"],
                task=5,
                quorum=2,
                fail_fast=True,
            )
            parallel("all", ["breaker", "adder"], task=5, fail_fast=True)
        assert dag.get_task("vote.gather").trigger_rule == "one_done"
        assert dag.get_task("all.gather").trigger_rule == "all_success"
        run = run_dag(dag)
        assert (run.task("vote.gather").state, run.task("all.gather").state) == ("failed", "upstream_failed")

    def test_what_is_skipped_before_it_skips_it_whole(self, run_dag):
        @task
        def skip():
            raise AirflowSkipException

        with DAG("skipped") as dag:
            skip() >> parallel("vote", ["doubler", "adder"], task=5) >> EmptyOperator(task_id="after")
        run = run_dag(dag)
        states = [run.task(each).state for each in ("vote.doubler", "vote.gather", "after")]
        assert states == ["skipped", "skipped", "skipped"]

    @pytest.mark.parametrize("quorum", [0, 3, -1])
    def test_a_quorum_that_cannot_be_is_refused(self, quorum):
        with DAG("bad"), pytest.raises(ConfigurationError, match="there are 2 members: give 1 to 2"):
            parallel("vote", ["doubler", "adder"], task=1, quorum=quorum)


class TestRoute:
    def test_a_value_chooses(self, run_dag):
        with DAG("by_value") as dag:
            flow = route(
                "way",
                task=4,
                value="{{ 'big' }}",
                routes={"big": "doubler", "small": "adder"},
                default="silent",
            )
            EmptyOperator(task_id="after") << flow
        run = run_dag(dag)
        assert (run.state, run.xcom("way.result")) == ("success", 8)
        assert [run.task(f"way.{each}").state for each in ("adder", "silent")] == ["skipped", "skipped"]
        assert run.task("after").state == "success"

    def test_an_agent_chooses_by_what_it_answers(self, run_dag):
        @agent("clerk")
        def clerk(task: dict) -> dict:
            return {"route": task["kind"], "why": "it says so"}

        with DAG("by_agent") as dag:
            route(
                "way",
                task={"kind": "told"},
                decider="clerk",
                routes={"told": "teller", "other": "silent"},
                can_miss=True,
            )
        run = run_dag(dag)
        assert run.xcom("way.result") == {"told": {"kind": "told"}}

    def test_the_first_rule_that_holds_chooses(self, run_dag):
        @task
        def made():
            return {"total": 120, "country": "de"}

        with DAG("by_rule") as dag:
            route(
                "way",
                task=made(),
                rules={"output.total > 1000": "silent", "output.total > 100": "teller", "true": "breaker"},
            )
        run = run_dag(dag)
        assert (run.state, run.xcom("way.result")) == ("success", {"told": {"total": 120, "country": "de"}})

    def test_a_rule_that_fails_does_not_hold_and_is_counted(self, run_dag, monkeypatch, caplog):
        from airflow_agentic.workflows import routes

        counted = []

        class Counting:
            def count(self, name, value=1, tags=None):
                counted.append((name, tags))

        monkeypatch.setattr(routes, "AirflowMetrics", Counting)
        with DAG("rule_fails") as dag:
            route(
                "way",
                task={"total": "a text"},
                rules={"output.missing > 3": "breaker", "output.total": "breaker"},
                default="teller",
            )
        run = run_dag(dag)
        assert (run.state, run.xcom("way.result")) == ("success", {"told": {"total": "a text"}})
        assert counted == [("workflow.rule_errors", {"task": "way.choose"})] * 2

    def test_what_may_miss_skips_what_follows(self, run_dag):
        with DAG("misses") as dag:
            route(
                "way", task=4, value="{{ 'none' }}", routes={"big": "doubler"}, can_miss=True
            ) >> EmptyOperator(task_id="after")
        run = run_dag(dag)
        assert [run.task(each).state for each in ("way.doubler", "way.result", "after")] == ["skipped"] * 3

    def test_ways_may_be_workflows(self, run_dag):
        with DAG("nested") as dag:
            route(
                "way",
                task=4,
                value="{{ 'b' }}",
                routes={
                    "a": lambda got: parallel("vote", ["doubler", "adder"], task=got),
                    "b": lambda got: sequence("work", ["doubler", "adder"], task=got),
                },
                can_miss=True,
            )
        run = run_dag(dag)
        assert (run.state, run.xcom("way.result"), run.task("way.vote.gather").state) == (
            "success",
            9,
            "skipped",
        )

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            ({"routes": {"a": "doubler"}}, "what fits no route would be lost. Give default="),
            ({"rules": {"output.a": "doubler"}}, "what fits no route would be lost. Give default="),
            ({}, "give either routes="),
            ({"routes": {"a": "doubler"}, "rules": {"true": "adder"}}, "give either routes="),
            ({"routes": {}, "can_miss": True}, "at least 1 of routes"),
            ({"rules": {"true": "doubler"}, "decider": "teller"}, "rules look at the task"),
            (
                {"routes": {"a": "doubler"}, "value": "a", "decider": "teller", "can_miss": True},
                "either value= chooses",
            ),
            ({"routes": {"a": "doubler"}, "default": "adder", "can_miss": True}, "leave can_miss out"),
            ({"routes": {"large": "doubler"}, "value": "lagre", "default": "adder"}, "did you mean 'large'"),
        ],
    )
    def test_what_cannot_work_is_refused(self, arguments, why):
        with DAG("bad"), pytest.raises(ConfigurationError, match=why):
            route("way", task={}, **arguments)

    def test_a_rule_that_does_not_compile_is_refused(self):
        with DAG("bad"), pytest.raises(InvalidFilter, match=r"Write a CEL condition on output"):
            route("way", task={}, rules={"output.total >": "doubler"}, default="adder")


class TestMapReduce:
    def test_each_item_is_mapped_and_the_results_are_reduced(self, run_dag):
        with DAG("mapped") as dag:
            flow = map_reduce("all", items=[1, 2, 3], mapper="doubler", reducer="summer")
        run = run_dag(dag)
        assert (run.state, run.xcom(flow.output.operator.task_id)) == ("success", 12)
        assert run.xcom("all.doubler", map_index=1) == 4

    def test_a_splitter_makes_the_items(self, run_dag):
        @agent("splitter")
        def split(task: str) -> list:
            return [int(each) for each in task.split()]

        with DAG("split") as dag:
            map_reduce(
                "all",
                splitter="splitter",
                task="4 5",
                mapper={"agent": "adder", "max_active_tis_per_dagrun": 1},
                reducer="summer",
            )
        run = run_dag(dag)
        assert (run.state, run.xcom("all.summer")) == ("success", 11)

    def test_no_items_make_an_empty_list(self, run_dag):
        @task
        def none():
            return []

        with DAG("empty") as dag:
            map_reduce("all", items=none(), mapper="doubler", reducer="summer")
        run = run_dag(dag)
        assert (run.state, run.xcom("all.summer"), run.xcom("all.collect")) == ("success", 0, [])

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            ({}, "either items= or splitter="),
            ({"items": [1], "splitter": "teller"}, "either items= or splitter="),
            ({"items": []}, "must be a list with something in it"),
            ({"items": "abc"}, "must be a list with something in it"),
            ({"items": [1], "task": 3}, "task= is for the splitter"),
        ],
    )
    def test_what_cannot_work_is_refused(self, arguments, why):
        with DAG("bad"), pytest.raises(ConfigurationError, match=why):
            map_reduce("all", mapper="doubler", reducer="summer", **arguments)

    def test_an_unknown_mapper_is_refused(self):
        with DAG("bad"), pytest.raises(UnknownAgent):
            map_reduce("all", items=[1], mapper="nobody", reducer="summer")


class TestAirflow:
    def test_a_workflow_is_mapped_as_a_task_group(self, run_dag):
        with DAG("expanded") as dag:

            @task_group
            def each(number):
                return parallel("vote", ["doubler", "breaker", "adder"], task=number, quorum=2).output

            @task
            def gather(found):
                return list(found)

            gather(each.expand(number=[1, 10]))
        run = run_dag(dag)
        assert run.xcom("gather") == [{"doubler": 2, "adder": 2}, {"doubler": 20, "adder": 11}]

    def test_a_route_within_a_mapped_group_goes_its_own_way_for_each(self, run_dag):
        with DAG("expanded_routes") as dag:

            @task_group
            def each(number):
                return route("way", task=number, rules={"output > 5": "doubler"}, default="adder").output

            @task
            def gather(found):
                return list(found)

            gather(each.expand(number=[1, 10]))
        run = run_dag(dag)
        assert run.xcom("gather") == [2, 20]
        went = [
            [run.task(f"each.way.{way}", index).state for way in ("doubler", "adder")] for index in (0, 1)
        ]
        assert went == [["skipped", "success"], ["success", "skipped"]]

    def test_a_teardown_runs_though_the_workflow_failed(self, run_dag):
        done = []

        @task
        def begin():
            done.append("begin")

        @task
        def end():
            done.append("end")

        with DAG("torn") as dag:
            up, down = begin().as_setup(), end()
            up >> parallel("vote", ["doubler", "breaker"], task=1) >> down.as_teardown(setups=up)
        run = run_dag(dag)
        assert (run.state, done) == ("failed", ["begin", "end"])

    def test_what_comes_when_all_is_done_comes_after_a_failure_too(self, run_dag):
        with DAG("all_done") as dag:
            sequence("work", ["breaker", "adder"], task=1) >> EmptyOperator(
                task_id="after", trigger_rule="all_done"
            )
        run = run_dag(dag)
        assert run.task("after").state == "success"
