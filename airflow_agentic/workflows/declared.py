"""DAGs of the workflows that the project file declares."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, get_current_context, task, task_group

from airflow_agentic import runtime
from airflow_agentic.config.workflows import WorkflowSection
from airflow_agentic.errors import AgenticError, InvalidFilter, ProjectInvalid
from airflow_agentic.messaging.declared import check_conditions
from airflow_agentic.runtime.starts import started_by
from airflow_agentic.workflows.mapping import map_reduce
from airflow_agentic.workflows.parallels import parallel
from airflow_agentic.workflows.people import Ask, await_human
from airflow_agentic.workflows.routes import route
from airflow_agentic.workflows.sagas import NO_COMPENSATION, Step, saga
from airflow_agentic.workflows.sequences import sequence
from airflow_agentic.workflows.starts import on_message
from airflow_agentic.workflows.teams import debate, handoff, supervise
from airflow_agentic.workflows.workflow import Workflow

_GROUP = "work"
_TAGS = ("agentic",)


def declared_dags() -> dict[str, DAG]:
    """Make a DAG of each workflow that the project file declares under ``workflows:``.

    A DAG file of two lines is all that Airflow needs::

        from airflow_agentic.workflows import declared_dags

        declared_dags()

    Returns:
        The DAGs by name. Airflow finds them by itself.

    Raises:
        ProjectInvalid: Something is wrong with the project, by file, line and key.
    """
    project = runtime.project()
    made = {}
    faults = [project.fault(*told) for told in check_conditions(project)]
    for name, section in project.workflows.items():
        try:
            made[name] = _dag(name, section)
        except ProjectInvalid:
            raise
        except InvalidFilter:
            continue  # It has its fault already, with its place.
        except AgenticError as error:
            faults.append(project.fault(("workflows", name), str(error)))
    if faults:
        raise ProjectInvalid(faults)
    return made


def _dag(name: str, section: WorkflowSection) -> DAG:
    timeout = section.timeout_seconds
    with DAG(
        name,
        description=section.description,
        schedule=on_message(section.on_message, deliver=True) if section.on_message else section.schedule,
        catchup=False,
        tags=[*_TAGS, *section.tags],
        render_template_as_native_obj=True,
        default_args={
            **_said(policy=section.policy, persistence=section.persistence),
            "retries": section.retries,
            "retry_delay": timedelta(seconds=section.retry_seconds),
            "execution_timeout": None if timeout is None else timedelta(seconds=timeout),
        },
    ) as dag:
        make = _PATTERNS[section.kind]
        if section.on_message is None:
            make(section, _plain(section.task))
        elif section.kind == "map_reduce":
            make(section, messages(_plain(section.task)))
        else:
            # What the patterns make is mapped over the messages that started the run.
            @task_group(group_id="message")
            def each(message: Any) -> Any:
                return make(section, message).output

            each.expand(message=messages(_plain(section.task)))
    return dag


@task
def messages(otherwise: Any) -> list[Any]:
    """Return the data of the messages that started the run; of a run that a person started, the task that is declared."""
    starts = started_by(get_current_context())
    found = [start.message.data for start in starts if start.message is not None]
    return found or ([] if otherwise is None else [otherwise])


def _sequence(section: WorkflowSection, given: Any) -> Workflow:
    return sequence(_GROUP, section.agents, task=given)


def _parallel(section: WorkflowSection, given: Any) -> Workflow:
    return parallel(
        _GROUP,
        section.agents,
        task=given,
        quorum=section.quorum,
        fail_fast=section.fail_fast,
    )


def _route(section: WorkflowSection, given: Any) -> Workflow:
    return route(
        _GROUP,
        task=given,
        routes=section.routes or None,
        rules={rule.when: rule.agent for rule in section.rules} or None,
        decider=section.decider,
        default=section.default,
        can_miss=section.can_miss,
    )


def _map_reduce(section: WorkflowSection, given: Any) -> Workflow:
    assert section.mapper is not None
    assert section.reducer is not None
    came = given if section.on_message else _plain(section.items) or None
    return map_reduce(
        _GROUP,
        mapper=section.mapper,
        reducer=section.reducer,
        items=came,
        splitter=section.splitter,
        task=None if came is not None else given,
    )


def _saga(section: WorkflowSection, given: Any) -> Workflow:
    steps = [
        Step(step.agent, NO_COMPENSATION if step.no_compensation else step.compensation)
        for step in section.steps
    ]
    return saga(_GROUP, steps, task=given)


def _supervise(section: WorkflowSection, given: Any) -> Workflow:
    assert section.supervisor is not None
    return supervise(
        _GROUP,
        supervisor=section.supervisor,
        workers=section.agents,
        task=given,
        **_said(rounds=section.rounds),
    )


def _handoff(section: WorkflowSection, given: Any) -> Workflow:
    return handoff(_GROUP, section.agents, task=given, **_said(hops=section.rounds))


def _debate(section: WorkflowSection, given: Any) -> Workflow:
    assert section.judge is not None
    return debate(
        _GROUP,
        section.agents,
        judge=section.judge,
        task=given,
        until=section.until,
        **_said(rounds=section.rounds),
    )


def _await_human(section: WorkflowSection, given: Any) -> Workflow:
    stages = [
        Ask(each.users, None if each.within_seconds is None else timedelta(seconds=each.within_seconds))
        for each in section.ask
    ]
    body = None if given is None else str(given)
    return await_human(
        _GROUP,
        section.question,
        body=body,
        **_said(ask=stages or None, options=section.options or None),
    )


_PATTERNS: dict[str, Callable[[WorkflowSection, Any], Workflow]] = {
    "sequence": _sequence,
    "parallel": _parallel,
    "route": _route,
    "map_reduce": _map_reduce,
    "saga": _saga,
    "supervise": _supervise,
    "handoff": _handoff,
    "debate": _debate,
    "await_human": _await_human,
}


def _said(**arguments: Any) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if value is not None}


def _plain(value: Any) -> Any:
    """Return what the project keeps frozen as Airflow's templates want it: dicts and lists."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
