"""Scenes of workflows: DAG runs that are triggered together, and what is done to some of them."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Any

from effects import Outside
from killing import Task, kill
from scenes import ended
from waiting import wait_until

from airflow_agentic.messaging import Message
from airflow_agentic.stores import open_store
from localairflow.stack import LocalAirflow

KILLS = 5
DEATHS_OF_A_COMPENSATION = ("before cancelling hotel", "after the end of cancelling hotel")
DEATH_IN_DOUBT = "after cancelling flight"
CLAIMS = 4


@dataclass
class Flow:
    """A DAG run of a workflow."""

    airflow: LocalAirflow
    dag_id: str
    run_id: str
    outside: Outside
    state: str = ""
    seen: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begun(
        cls,
        airflow: LocalAirflow,
        dag_id: str,
        run_id: str,
        *holds: str,
        shut: str | None = None,
        **conf: Any,
    ) -> Flow:
        """Trigger it."""
        flow = cls(airflow, dag_id, run_id, Outside(airflow, run_id, *holds, shut=shut))
        airflow.client.trigger(dag_id, conf=conf, run_id=run_id)
        return flow

    def ended(self) -> Flow:
        """Wait for its end."""
        self.state = ended(self.airflow, self.dag_id, self.run_id)
        return self

    def result(self, task_id: str) -> Any:
        """What a task of it returned."""
        return self.airflow.client.xcom(self.dag_id, self.run_id, task_id)

    def states(self) -> dict[str, str | None]:
        """How each task of it stands."""
        found = self.airflow.client.task_instances(self.dag_id, self.run_id)
        return {each.label: each.state for each in found}

    def task(self, task_id: str) -> Task:
        return Task(self.airflow, self.dag_id, self.run_id, task_id)


def in_sequence(airflow: LocalAirflow) -> Flow:
    return Flow.begun(airflow, "in_sequence", "sequence").ended()


def in_parallel(airflow: LocalAirflow) -> Flow:
    return Flow.begun(airflow, "in_parallel", "parallel").ended()


def without_quorum(airflow: LocalAirflow) -> Flow:
    return Flow.begun(airflow, "without_quorum", "without-quorum").ended()


def on_a_route(airflow: LocalAirflow) -> Flow:
    return Flow.begun(airflow, "on_a_route", "route", number=50).ended()


def on_no_route(airflow: LocalAirflow) -> Flow:
    return Flow.begun(airflow, "on_a_route", "no-route", number=5).ended()


def mapped_and_reduced(airflow: LocalAirflow) -> Flow:
    return Flow.begun(airflow, "mapped_and_reduced", "mapped").ended()


def supervised(airflow: LocalAirflow) -> Flow:
    return Flow.begun(airflow, "supervised", "supervised").ended()


def handed_over(airflow: LocalAirflow) -> Flow:
    return Flow.begun(airflow, "handed_over", "handed-over").ended()


def declared(airflow: LocalAirflow) -> Flow:
    return Flow.begun(airflow, "tickets", "declared").ended()


def trip(airflow: LocalAirflow) -> Flow:
    """A saga fails at its last step; what takes back the others dies three times."""
    flow = Flow.begun(airflow, "trip", "trip", *DEATHS_OF_A_COMPENSATION, DEATH_IN_DOUBT)
    for moment in (*DEATHS_OF_A_COMPENSATION, DEATH_IN_DOUBT):
        flow.outside.kill_at(moment)
    return flow.ended()


def debated(airflow: LocalAirflow) -> Flow:
    """A debate dies at any moment, again and again; the last round waits until it died as often as it is to."""
    flow = Flow.begun(airflow, "debated", "debate", shut="the last round")
    task, dice, kills = flow.task("work.rounds"), random.Random(20), 0
    deadline = time.monotonic() + 150
    while kills < KILLS:
        assert time.monotonic() < deadline, f"only {kills} could be killed"
        spoken = len(flow.outside.effects)
        # Each of them gets on before it dies, or dies in the last round.
        wait_until(lambda before=spoken: len(flow.outside.effects) > before or _is_late(flow), 60)
        time.sleep(dice.uniform(0.0, 0.3))
        worker, supervisor = task.workers()
        if worker is None:
            continue
        if kills == KILLS - 1 and supervisor is not None:
            kill(supervisor)
        kill(worker)
        kills += 1
    flow.outside.open("the last round")
    return flow.ended()


def _is_late(flow: Flow) -> bool:
    return len(flow.outside.counted) >= 57  # of 60 turns, those before the last round


def asked(airflow: LocalAirflow) -> Flow:
    """The first one who is asked does not answer in time, and the second one does."""
    flow = Flow.begun(airflow, "asked", "asked")
    second = flow.task("work.escalate_1")
    second.wait_for("awaiting_input")
    flow.seen["states"] = flow.states()
    second.wait_until_let_go()
    path = f"{second.path}/-1/hitlDetails"
    flow.seen["question"] = airflow.client.get(path)
    airflow.client.patch(path, {"chosen_options": ["Yes"], "params_input": {"why": "it is time"}})
    return flow.ended()


def on_messages(airflow: LocalAirflow) -> dict[str, Any]:
    """Messages come to a mailbox whose DAG is told that there are some, and to one whose DAG gets each of them."""
    outside = Outside(airflow, "claims")

    def notices() -> list[int]:
        runs = [run for run in airflow.client.dag_runs("notices_delivered") if run["state"] == "success"]
        found = [airflow.client.xcom("notices_delivered", run["dag_run_id"], "read") for run in runs]
        return sorted(notice["number"] for each in found for notice in each)

    def is_quiet() -> bool:
        queued = airflow.client.get("/dags/notices_delivered/assets/queuedEvents")["total_entries"]
        return not queued and all(
            run["state"] == "success" for run in airflow.client.dag_runs("notices_delivered")
        )

    with open_store(airflow.store_url) as store:
        for number in range(CLAIMS):
            for mailbox in ("claims", "notices"):
                store.bus.send(Message(source="test", recipient=mailbox, data={"number": number}))
        for mailbox in ("claims", "notices"):
            wait_until(lambda box=mailbox: store.bus.stats(box).done == CLAIMS, 120)
        wait_until(lambda: notices() and is_quiet(), 60)
        first = notices()
        # Events that were stored while Airflow was about to begin a run wait for the next event (Airflow 3.3.2).
        store.bus.send(Message(source="test", recipient="notices", data={"number": CLAIMS}))
        wait_until(lambda: CLAIMS in notices() and is_quiet(), 60)
    runs = airflow.client.dag_runs("claims_announced")
    for run in runs:
        ended(airflow, "claims_announced", run["dag_run_id"])
    return {"effects": outside.counted, "first": first, "notices": notices(), "runs": len(runs)}
