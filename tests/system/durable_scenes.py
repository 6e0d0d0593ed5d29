"""Scenes of durable runs: who is killed, cleared, asked and waited for, and when. What must come of it is in the tests."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import psutil
from effects import Outside
from killing import Task, kill, replace_triggerer, supervisor_of
from scenes import ended
from waiting import wait_until

from airflow_agentic.messaging import Message
from airflow_agentic.stores import open_store
from localairflow.stack import LocalAirflow

STEPS = 6
MANY_STEPS = 14
BOUNDARIES = ("before effect 2", "after effect 3", "between 4 and 5", "after the last step", "after the end")
RANDOM_KILLS, KILLS_OF_SUPERVISORS = 10, 2


@dataclass
class Ledger:
    """A run of the DAG `ledger`, and what is done to it."""

    airflow: LocalAirflow
    run_id: str
    outside: Outside
    steps: int = STEPS
    kills: int = 0
    of_supervisors: int = 0
    seen: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begun(
        cls, airflow: LocalAirflow, run_id: str, *holds: str, shut: str | None = None, **conf: Any
    ) -> Ledger:
        """Trigger it."""
        outside = Outside(airflow, run_id, *holds, shut=shut)
        conf = {"steps": STEPS, **conf}
        airflow.client.trigger("ledger", conf=conf, run_id=run_id)
        return cls(airflow, run_id, outside, conf["steps"])

    @property
    def key(self) -> str:
        """Of its durable run."""
        return f"ledger/ledger/{self.run_id}/keep"

    @property
    def task(self) -> Task:
        return Task(self.airflow, "ledger", self.run_id, "keep")

    def ended(self) -> Ledger:
        """Wait for its end."""
        self.seen["state"] = ended(self.airflow, "ledger", self.run_id)
        self.seen["result"] = self.airflow.client.xcom("ledger", self.run_id, "keep")
        self.seen["tries"] = self.task.instance["try_number"]
        return self


def undisturbed(airflow: LocalAirflow) -> Ledger:
    """Nobody does anything to it."""
    return Ledger.begun(airflow, "undisturbed").ended()


def killed_at_boundaries(airflow: LocalAirflow) -> Ledger:
    """The process of the task dies in a step, between two, after the last one, and after the end of the run."""
    ledger = Ledger.begun(airflow, "boundaries", *BOUNDARIES)
    for moment in BOUNDARIES:
        ledger.outside.kill_at(moment)
        ledger.kills += 1
    return ledger.ended()


def _without_supervisor(airflow: LocalAirflow, run_id: str, moment: str) -> Ledger:
    ledger = Ledger.begun(airflow, run_id, moment)
    ledger.outside.kill_at(moment, supervisor=True)
    ledger.of_supervisors += 1
    return ledger.ended()


def supervisor_killed_in_a_step(airflow: LocalAirflow) -> Ledger:
    """The task's process lives on, as long as it can, and Airflow tries again."""
    return _without_supervisor(airflow, "orphan-in-a-step", "after effect 2")


def supervisor_killed_between_steps(airflow: LocalAirflow) -> Ledger:
    return _without_supervisor(airflow, "orphan-between", "between 3 and 4")


def supervisor_killed_after_the_last_step(airflow: LocalAirflow) -> Ledger:
    return _without_supervisor(airflow, "orphan-at-the-end", "after the last step")


def both_killed_in_a_step(airflow: LocalAirflow) -> Ledger:
    """The machine dies: the process of the task and its supervisor."""
    moment = "after effect 3"
    ledger = Ledger.begun(airflow, "both", moment)
    ledger.outside.at(moment)
    # The supervisor first: when its child has died, it may have the next task in its hands, or the queue of all.
    for process in reversed(ledger.task.workers()):
        assert process is not None
        kill(process)
    ledger.kills = ledger.of_supervisors = 1
    ledger.outside.let_go(moment)
    return ledger.ended()


def late_comer(airflow: LocalAirflow) -> Ledger:
    """A process whose supervisor died stands still in a step, and goes on when another try has finished the run."""
    moment = "before effect 2"
    ledger = Ledger.begun(airflow, "late-comer", moment)
    pid = ledger.outside.at(moment)
    worker, supervisor = ledger.task.workers()
    assert worker is not None
    assert supervisor is not None
    assert worker.pid == pid
    kill(supervisor)
    ledger.of_supervisors += 1
    ledger.ended()
    with open_store(airflow.store_url) as store:
        ledger.seen["version"] = store.runs.find(ledger.key).version
    ledger.outside.let_go(moment)
    wait_until(lambda: not worker.is_running() or worker.status() == "zombie", 60)
    ledger.seen["late"] = pid
    return ledger


def late_opener(airflow: LocalAirflow) -> Ledger:
    """A process whose supervisor died before its first step opens the run when a later try is in the middle of it."""
    first, second = "before the first step", "between 3 and 4"
    ledger = Ledger.begun(airflow, "late-opener", first, second)
    pid = ledger.outside.at(first)
    kill(supervisor_of(pid))
    ledger.of_supervisors += 1
    other = ledger.outside.at(second)
    assert other != pid
    ledger.outside.let_go(first)
    wait_until(lambda: not psutil.pid_exists(pid), 60)
    ledger.outside.let_go(second)
    return ledger.ended()


def killed_at_random(airflow: LocalAirflow) -> Ledger:
    """Whoever works on it dies, again and again, at any moment; the last step waits until enough have died."""
    ledger = Ledger.begun(airflow, "at-random", shut="the last step", steps=MANY_STEPS, seconds=0.3)
    dice = random.Random(20261123)
    deadline = time.monotonic() + 150
    while ledger.kills + ledger.of_supervisors < RANDOM_KILLS:
        assert time.monotonic() < deadline, f"only {ledger.kills} and {ledger.of_supervisors} could be killed"
        time.sleep(dice.uniform(0.1, 2.2))
        worker, supervisor = ledger.task.workers()
        if worker is None:
            continue
        left = KILLS_OF_SUPERVISORS - ledger.of_supervisors
        if supervisor is not None and left and dice.random() < 0.4:
            kill(supervisor)
            ledger.of_supervisors += 1
        else:
            kill(worker)
            ledger.kills += 1
    ledger.outside.open("the last step")
    return ledger.ended()


@dataclass
class Cleared:
    """What there was before and after tasks were cleared."""

    run_id: str
    failed: dict[str, Any] = field(default_factory=dict)
    mended: dict[str, Any] = field(default_factory=dict)
    again: dict[str, Any] = field(default_factory=dict)


def cleared(airflow: LocalAirflow) -> Cleared:
    """Tasks fail for good; what is broken is mended, and they are cleared; then one that succeeded is cleared."""
    scene = Cleared("cleared")
    outside = Outside(airflow, scene.run_id)

    def stands() -> dict[str, Any]:
        state = ended(airflow, "clears", scene.run_id)
        tasks = airflow.client.task_instances("clears", scene.run_id)
        return {
            "state": state,
            "tasks": {task.label: (task.state, task.try_number) for task in tasks},
            "effects": outside.counted,
        }

    def clear(**which: Any) -> None:
        body = {"dag_run_id": scene.run_id, "dry_run": False, "reset_dag_runs": True, **which}
        airflow.client.post("/dags/clears/clearTaskInstances", body)

    airflow.client.trigger("clears", run_id=scene.run_id)
    scene.failed = stands()
    outside.put("mended")
    clear(only_failed=True)
    scene.mended = stands()
    clear(only_failed=False, task_ids=["one"])
    scene.again = stands()
    return scene


@dataclass
class Waiting:
    """What was seen while tasks waited, and how each went on."""

    airflow: LocalAirflow
    run_id: str
    outside: Outside
    seen: dict[str, Any] = field(default_factory=dict)

    def task(self, task_id: str) -> Task:
        return Task(self.airflow, "waits", self.run_id, task_id)

    def states(self) -> dict[str, str | None]:
        """How each task stands."""
        return {each.task_id: each.state for each in self.airflow.client.task_instances("waits", self.run_id)}

    def slots(self) -> int:
        """How many slots of the one that there is are occupied."""
        return int(self.airflow.client.get("/pools/one-slot")["occupied_slots"])

    def questions(self) -> dict[str, dict[str, Any]]:
        """What stands on the page of required actions, by task."""
        path = f"/dags/waits/dagRuns/{self.run_id}/hitlDetails"
        found = self.airflow.client.get(path, {"response_received": "false", "state": "awaiting_input"})
        return {each["task_instance"]["task_id"]: each for each in found["hitl_details"]}

    def answer(self, task_id: str, option: str, **fields: Any) -> None:
        """Answer there."""
        self.task(task_id).wait_until_let_go()
        path = f"{self.task(task_id).path}/-1/hitlDetails"
        self.airflow.client.patch(path, {"chosen_options": [option], "params_input": fields})


def waiting(airflow: LocalAirflow) -> Waiting:
    """Five tasks in a pool of one slot wait at once; they are answered in every way, and the triggerer dies."""
    pool = {"name": "one-slot", "slots": 1, "description": "", "include_deferred": False}
    airflow.client.post("/pools", pool)
    run_id = "waiting"
    scene = Waiting(airflow, run_id, Outside(airflow, run_id, "after paying"))
    airflow.client.trigger("waits", run_id=run_id)
    scene.outside.kill_at("after paying")

    parked = {"asks": "awaiting_input", "pays": "awaiting_input", "receives": "deferred"}
    # These two wait for a time, and may be over already.
    timed = {"sleeps": ("deferred", "success"), "hurries": ("awaiting_input", "success")}

    def all_wait() -> bool:
        states = scene.states()
        scene.seen["parked"] = states
        return (
            parked.items() <= states.items()
            and all(states[name] in good for name, good in timed.items())
            and scene.slots() == 0
        )

    wait_until(all_wait, 90)
    scene.seen["questions"] = scene.questions()
    scene.answer("asks", "Answer", approve=True, limit=5)
    scene.answer("pays", "Skip", result='"receipt 1"')
    scene.task("asks").wait_for("deferred")
    scene.task("pays").wait_for("success")
    scene.seen["deferred"] = [name for name, state in scene.states().items() if state == "deferred"]
    replace_triggerer(airflow)
    with open_store(airflow.store_url) as store:
        for number in (1, 2):
            box = f"receipts-of-{run_id}"
            store.bus.send(Message(source="bank", recipient=box, data={"number": number}))
    scene.seen["second question"] = _answered_by_hand(airflow, f"asker/waits/{run_id}/asks")
    scene.seen["state"] = ended(airflow, "waits", run_id)
    return scene


def _answered_by_hand(airflow: LocalAirflow, key: str) -> dict[str, Any]:
    """Look what a run asks, and answer it, as a person does on the command line."""
    (question,) = json.loads(command_line(airflow, "show", key, "-o", "json"))["questions"]
    command_line(airflow, "answer", key, question["name"], '"giro"', "--actor", "ana")
    return dict(question)


def command_line(airflow: LocalAirflow, *words: str, code: int = 0) -> str:
    """Run ``airflow agentic runs …``; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "agentic", "runs", *words],
        env=airflow.env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout
