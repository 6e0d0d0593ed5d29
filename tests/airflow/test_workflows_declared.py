"""Workflows of the project file become DAGs, or are refused with their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag

from airflow_agentic.agents import agent
from airflow_agentic.agents.registry import registry
from airflow_agentic.config import ProjectInvalid, load_project
from airflow_agentic.config.schema import json_schema
from airflow_agentic.workflows import declared_dags

AGENTS = "agents: {doubler: {}, adder: {}, summer: {}, boss: {}, clerk: {}}\n"


@pytest.fixture(autouse=True)
def own_agents(monkeypatch):
    monkeypatch.setattr(registry, "_known", {})

    @agent("doubler")
    def double(task: int) -> int:
        return 2 * task

    @agent("adder")
    def add(task: int) -> int:
        return task + 1

    @agent("summer")
    def total(task: list) -> int:
        return sum(task)

    @agent("boss")
    def boss(task: dict) -> dict:
        done = task.get("turns", ())
        return {"result": done[-1]["answer"]} if done else {"next": "doubler", "task": 4}

    @agent("clerk")
    def clerk(task: dict) -> str:
        return f"{len(task['turns'])} turns"


@pytest.fixture
def project(tmp_path, monkeypatch):
    def written(text):
        file = tmp_path / "agentic.yaml"
        file.write_text(AGENTS + text)
        monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", str(file))
        return file

    return written


def described(text):
    return "\n".join(f"  {line}" for line in ["made:", *(f"  {each}" for each in text.splitlines())])


@pytest.mark.parametrize(
    ("text", "task_id", "expected"),
    [
        ("kind: sequence\nagents: [doubler, adder]\ntask: 4", "work.adder", 9),
        (
            "kind: parallel\nagents: [doubler, adder]\ntask: 4\nquorum: 1",
            "work.gather",
            {"doubler": 8, "adder": 5},
        ),
        (
            "kind: route\nrules: [{when: output > 3, agent: doubler}]\ndefault: adder\ntask: 4",
            "work.result",
            8,
        ),
        ("kind: route\nroutes: {4: doubler}\ncan_miss: true\ntask: 4", "work.result", 8),
        ("kind: map_reduce\nmapper: doubler\nreducer: summer\nitems: [1, 2]", "work.summer", 6),
        ("kind: supervise\nsupervisor: boss\nagents: [doubler]\ntask: {}\nrounds: 2", "work.supervise", 8),
        (
            "kind: handoff\nagents: [doubler, adder]\ntask: 4",
            "work.handoff",
            {"agent": "doubler", "result": 8, "path": ["doubler"]},
        ),
        (
            (
                "kind: saga\nsteps:\n- {agent: doubler, compensation: adder}\n- {agent: adder, no_compensation: true}\n"
                "- {agent: adder}\ntask: 4"
            ),
            "work.outcome",
            10,
        ),
        (
            "kind: debate\nagents: [boss, clerk]\njudge: clerk\ntask: tea\nrounds: 2\nuntil: 'true'",
            "work.judge",
            "2 turns",
        ),
    ],
    ids=lambda value: value.partition("\n")[0] if isinstance(value, str) and "kind" in value else "",
)
def test_each_pattern_can_be_declared(project, run_dag, text, task_id, expected):
    project(f"workflows:\n{described(text)}")
    run = run_dag(declared_dags()["made"])
    assert (run.state, run.xcom(task_id)) == ("success", expected)


def test_a_person_can_be_asked(project, store_url):
    project(
        "workflows: {made: {kind: await_human, question: [ok?, sure?], ask: [{users: [ana], within_seconds: 5}, {}]}}"
    )
    dag = declared_dags()["made"]
    assert sorted(dag.task_ids) == [
        "work.answer_1",
        "work.answer_2",
        "work.answers",
        "work.ask_1",
        "work.ask_2",
        "work.escalate_1_1",
        "work.escalate_1_2",
    ]


def test_what_is_said_of_the_dag_is_in_the_dag(project, store_url):
    project(
        "policies: {careful: {retry: {max_attempts: 2}}}\n"
        "workflows: {made: {kind: sequence, agents: [adder], description: Adds., schedule: '@daily', tags: [sums], "
        "retries: 3, retry_seconds: 7, timeout_seconds: 60, policy: careful, persistence: events}}"
    )
    dag = declared_dags()["made"]
    task = dag.get_task("work.adder")
    assert (dag.description, dag.tags, dag.catchup) == ("Adds.", {"agentic", "sums"}, False)
    assert (task.retries, task.retry_delay.seconds, task.execution_timeout.seconds) == (3, 7, 60)
    assert (task.policy, task.persistence) == ("careful", "events")


def test_each_message_is_a_task_of_its_own(project, store, metadata_db):
    project(
        "mailboxes: {sums: {}}\nworkflows: {made: {kind: sequence, agents: [doubler, adder], on_message: sums}}"
    )
    dag = declared_dags()["made"]
    _, kwargs = dag.timetable.asset_condition.watchers[0].trigger.serialize()
    assert (kwargs["mailbox"], kwargs["deliver"]) == ("sums", True)
    assert dag.get_task("message.work.doubler").get_closest_mapped_task_group() is not None


def test_a_run_that_a_person_started_works_on_the_declared_task(project, run_dag):
    project(
        "mailboxes: {sums: {}}\nworkflows: {made: {kind: sequence, agents: [doubler, adder], on_message: sums, task: 4}}"
    )
    run = run_dag(declared_dags()["made"])
    assert (run.state, run.xcom("message.work.adder", map_index=0)) == ("success", 9)


def test_airflow_finds_them_in_a_file_of_two_lines(project, tmp_path, store_url):
    project("workflows: {made: {kind: sequence, agents: [adder]}, too: {kind: sequence, agents: [doubler]}}")
    folder = tmp_path / "dags"
    folder.mkdir()
    file = folder / "ours.py"
    file.write_text("from airflow_agentic.workflows import declared_dags\n\ndeclared_dags()\n")
    bag = DagBag(dag_folder=str(file))
    assert (bag.import_errors, sorted(bag.dags)) == ({}, ["made", "too"])
    assert {Path(dag.fileloc) for dag in bag.dags.values()} == {file}


@pytest.mark.parametrize(
    ("text", "key", "line", "message"),
    [
        ("kind: sequence", "workflows.made", 3, "a sequence must have agents"),
        ("kind: sequnce\nagents: [adder]", "workflows.made.kind", 4, "sequnce"),
        (
            "kind: sequence\nagents: [addre]",
            "workflows.made.agents.0",
            5,
            "there is no agent 'addre' (did you mean 'adder'?)",
        ),
        (
            "kind: sequence\nagents: [adder]\nquorum: 1",
            "workflows.made.quorum",
            6,
            "quorum does not go with sequence",
        ),
        (
            "kind: parallel\nagents: [adder]\nquorum: 2",
            "workflows.made.quorum",
            6,
            "2 cannot succeed of 1 agents",
        ),
        ("kind: parallel\nagents: [adder]\nquorum: 0", "workflows.made.quorum", 6, "0"),
        ("kind: route\nroutes: {a: adder}", "workflows.made", 3, "what fits no route would be lost"),
        (
            "kind: route\nroutes: {a: addre}\ndefault: adder",
            "workflows.made.routes.a",
            5,
            "did you mean 'adder'",
        ),
        ("kind: route\ndefault: adder", "workflows.made", 3, "either routes or rules"),
        (
            "kind: route\nrules: [{when: 'true', agent: adder}]\ndecider: boss",
            "workflows.made.decider",
            6,
            "rules look at",
        ),
        (
            "kind: route\nroutes: {a: adder}\ndefault: adder\ncan_miss: true",
            "workflows.made.can_miss",
            7,
            "nothing can be missed",
        ),
        (
            "kind: map_reduce\nmapper: adder\nreducer: summer",
            "workflows.made",
            3,
            "one of items, splitter and on_message",
        ),
        (
            "kind: saga\nsteps: [{agent: adder}, {agent: adder}]",
            "workflows.made.steps.0",
            5,
            "nobody takes this step back",
        ),
        (
            "kind: saga\nsteps:\n- {agent: adder, compensation: adder}\n- {agent: adder, compensation: adder}",
            "workflows.made.steps.1.compensation",
            7,
            "the last step has a compensation",
        ),
        ("kind: debate\nagents: [boss, clerk]\njudge: clerk\nrounds: 0", "workflows.made.rounds", 7, "0"),
        ("kind: debate\nagents: [boss]\njudge: clerk", "workflows.made.agents", 5, "at least 2"),
        ("kind: supervise\nsupervisor: boss\nagents: [boss]", "workflows.made.agents.0", 6, "is there twice"),
        (
            "kind: sequence\nagents: [adder]\nschedule: '@daily'\non_message: adder",
            "workflows.made.on_message",
            7,
            "schedule",
        ),
        (
            "kind: sequence\nagents: [adder]\non_message: nobody",
            "workflows.made.on_message",
            6,
            "no agent or mailbox",
        ),
        ("kind: await_human\nquestion: [ok?]\nask: [{}, {}]", "workflows.made.ask.0", 6, "never be asked"),
        (
            "kind: route\nrules: [{when: 'output >', agent: adder}]\ndefault: adder",
            "workflows.made.rules.0.when",
            5,
            "compile",
        ),
        (
            "kind: debate\nagents: [boss, clerk]\njudge: clerk\nuntil: 'output.'",
            "workflows.made.until",
            7,
            "compile",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(project, store_url, text, key, line, message):
    file = project(f"workflows:\n{described(text)}")
    with pytest.raises(ProjectInvalid) as refused:
        declared_dags()
    found = [(each.key, each.line, Path(each.file).name) for each in refused.value.errors]
    assert (key, line, file.name) in found
    assert message in str(refused.value)
    with pytest.raises(ProjectInvalid) as deep:
        load_project(file)
    assert key in [each.key for each in deep.value.errors]


def test_an_agent_that_nothing_is_made_of_is_told_with_the_place_of_its_workflow(project, store_url):
    file = project("workflows: {made: {kind: sequence, agents: [adder]}}")
    registry._known.pop("adder")
    with pytest.raises(ProjectInvalid, match=r"agentic\.yaml:2: workflows\.made.*no agent is registered"):
        declared_dags()
    assert file.exists()


def test_the_schema_for_editors_knows_them():
    import jsonschema

    check = jsonschema.Draft202012Validator(json_schema())
    assert check.is_valid(
        {"workflows": {"made": {"kind": "sequence", "agents": ["a"], "task": {"any": [1]}}}}
    )
    assert not check.is_valid({"workflows": {"made": {"kind": "sequnce"}}})
    assert not check.is_valid({"workflows": {"made": {"kind": "sequence", "agnets": ["a"]}}})
