"""Failures of another DAG on a booted Airflow: agents read its logs, find the causes, and decide; some die on the way."""

from __future__ import annotations

import json
import random
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from types import SimpleNamespace

import psutil
import pytest
from killing import Task, kill
from waiting import wait_until

from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.persistence import RunQuery
from airflow_agentic.stores import open_store

NIGHT, TRIAGE = "nightly_load", "incident_triage"
SHOPS = ("north", "south", "east", "west", "centre", "harbour")
FAULTS = {"north": "column", "south": "column", "west": "file", "east": "total"}
CLEAR = f"/dags/{NIGHT}/clearTaskInstances"
KILLS = 8


class Warehouse(socketserver.ThreadingTCPServer):
    """Takes what it is told; nobody is there before it opens."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port):
        self.told = []
        warehouse = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                warehouse.told += [json.loads(line) for line in self.rfile]

        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module", autouse=True)
def _ready(airflow):
    for dag_id in (NIGHT, TRIAGE):
        airflow.client.wait_for_dag(dag_id, timeout_s=60)


def failed_night(airflow, run_id, **conf):
    airflow.client.trigger(NIGHT, conf=conf, run_id=run_id)
    assert airflow.client.wait(NIGHT, run_id, timeout=120) == "failed"
    return run_id


def kept(airflow, name):
    """What the runs of the triage wrote, by run."""
    files = (airflow.home.path / "incidents" / "runs").glob(f"*/{name}.json")
    return [json.loads(file.read_text()) for file in files]


def incidents_of(reports, night):
    return [
        incident
        for report in reports
        for incident in report["incidents"]
        if all(failure["run_id"] == night for failure in incident["failures"])
    ]


def reported(airflow, night):
    """All failures of a night that are in a report, as often as they are."""
    found = incidents_of(kept(airflow, "report"), night)
    return [failure for incident in found for failure in incident["failures"]]


def triaged(airflow):
    return [run["dag_run_id"] for run in airflow.client.dag_runs(TRIAGE)]


def resolvers(store, night):
    """The durable runs of the resolvers, by the exception of their incident."""
    found = {}
    for run in store.runs.find_all(RunQuery(agent="incident-resolver")):
        state = store.at(run.stream, run.version).state
        if any(f"/{night}/" in task for task in (state or {}).get("tasks", ())):
            found.setdefault(state["incident"].partition("-")[0], []).append(run.stream)
    return found


def task_of(airflow, key):
    _, _, run_id, task_id, index = key.split("/")
    return Task(airflow, TRIAGE, run_id, task_id, int(index))


def told_of(store, night):
    query = DeliveryQuery(mailbox="incidents", correlation_id=f"{NIGHT}:{night}", limit=1000)
    return store.bus.find(query)


def types(store, key, name):
    return [event.type for event in store.history(key) if event.name == name]


@pytest.fixture(scope="module")
def night(airflow, door):
    """A night in which several things go wrong: its triage is answered by a person, and killed in the middle of an effect."""
    port = free_port()
    with door.holding(CLEAR) as held, open_store(airflow.store_url) as store:
        run_id = failed_night(airflow, "night-1", faults=FAULTS, warehouse=f"127.0.0.1:{port}")
        warehouse = Warehouse(port)  # the cause has gone
        try:
            wait_until(lambda: "BooksDifferError" in resolvers(store, run_id))
            [asking] = resolvers(store, run_id)["BooksDifferError"]
            question = task_of(airflow, asking)
            question.wait_for("awaiting_input")
            question.wait_until_let_go()
            path = f"{question.path}/hitlDetails"
            asked = airflow.client.get(path)["subject"]
            said = {"decision": "ticket", "note": "call the shop in the morning"}
            airflow.client.patch(path, {"chosen_options": ["Answer"], "params_input": said})

            assert held.done.wait(90)
            [trying] = resolvers(store, run_id)["ConnectionRefusedError"]
            doing, _ = task_of(airflow, trying).workers()
            kill(doing)
            held.let_go.set()

            wait_until(lambda: len(reported(airflow, run_id)) == len(SHOPS), 120)
            for triage in triaged(airflow):
                assert airflow.client.wait(TRIAGE, triage, timeout=60) == "success"
            wait_until(lambda: len(warehouse.told) == 2)
        finally:
            warehouse.shutdown()
            warehouse.server_close()
    incidents = {each["raised"]["type"]: each for each in incidents_of(kept(airflow, "report"), run_id)}
    return SimpleNamespace(
        run_id=run_id, incidents=incidents, asking=asking, trying=trying, asked=asked, warehouse=warehouse
    )  # fmt: skip


def shops_of(incident):
    return sorted(SHOPS[failure["map_index"]] for failure in incident["failures"])


def test_tasks_that_failed_for_the_same_cause_are_one_incident(airflow, night):
    assert {kind: shops_of(each) for kind, each in night.incidents.items()} == {
        "KeyError": ["north", "south"],
        "FileNotFoundError": ["west"],
        "BooksDifferError": ["east"],
        "ConnectionRefusedError": ["centre", "harbour"],
    }
    assert len(incidents_of(kept(airflow, "report"), night.run_id)) == 4
    decided = {kind: (each["category"], each["choice"], each["by"]) for kind, each in night.incidents.items()}
    assert decided == {
        "KeyError": ("bug", "ticket", "rules"),
        "FileNotFoundError": ("access", "ticket", "rules"),
        "BooksDifferError": ("unknown", "ticket", "a person"),
        "ConnectionRefusedError": ("transient", "retry", "rules"),
    }


def test_what_goes_by_itself_was_tried_again_and_succeeded(airflow, night):
    tasks = {
        task.map_index: task
        for task in airflow.client.task_instances(NIGHT, night.run_id)
        if task.task_id == "load"
    }
    for shop in ("centre", "harbour"):
        task = tasks[SHOPS.index(shop)]
        assert (task.state, task.try_number) == ("success", 2)
    for shop in FAULTS:
        task = tasks[SHOPS.index(shop)]
        assert (task.state, task.try_number) == ("failed", 1)
    assert sorted(line["shop"] for line in night.warehouse.told) == ["centre", "harbour"]


def test_one_ticket_names_all_its_tasks_and_quotes_the_log(airflow, night):
    incident = night.incidents["KeyError"]
    tickets = list((airflow.home.path / "incidents" / "tickets").glob("KeyError-*.md"))
    assert [str(ticket) for ticket in tickets] == [incident["ticket"]]
    text = tickets[0].read_text()
    tasks = [f"`{NIGHT}/{night.run_id}/load[{SHOPS.index(shop)}], try 1`" for shop in ("north", "south")]
    assert [text.count(task) for task in tasks] == [1, 1]
    failed = next(
        task for task in airflow.client.task_instances(NIGHT, night.run_id)
        if task.map_index == SHOPS.index("north")
    )  # fmt: skip
    log = "\n".join(airflow.client.log(NIGHT, night.run_id, failed))
    quoted = re.search(r"^    (KeyError: .*)$", text, re.MULTILINE)[1]
    assert quoted == "KeyError: 'amount'"
    assert quoted in log


def test_the_choice_of_the_person_is_carried_out(airflow, store, night):
    assert "BooksDifferError: the rows of east come to 120.00, and it says 121.0" in night.asked
    ticket = (
        airflow.home.path / "incidents" / "tickets" / f"{night.incidents['BooksDifferError']['incident']}.md"
    )
    assert "call the shop in the morning" in ticket.read_text()
    [answer] = [event for event in store.history(night.asking) if event.type == "question.answered"]
    assert "admin" in json.dumps(answer.data)


def test_killed_after_its_effect_it_went_on_and_the_effect_happened_once(airflow, store, door, night):
    task = task_of(airflow, night.trying)
    # The try after the kill, and one for each time that it waited.
    assert task.instance["try_number"] >= 2
    cleared = [
        tuple(each["task_ids"][0]) for each in door.bodies(CLEAR) if each["dag_run_id"] == night.run_id
    ]
    assert Counter(cleared) == {("load", SHOPS.index("centre")): 1, ("load", SHOPS.index("harbour")): 1}
    told = [
        types(store, night.trying, f"retry {NIGHT}.load[{SHOPS.index(shop)}]")
        for shop in ("centre", "harbour")
    ]
    assert Counter(each.count("step.ambiguous") for each in told) == {0: 1, 1: 1}
    assert [each.count("step.done") for each in told] == [1, 1]
    outcomes = sorted(night.incidents["ConnectionRefusedError"]["outcomes"].values())
    assert outcomes == ["not failed any more", "tried again"]


def test_checkpoints_tell_how_far_it_was(store, night):
    for keys in resolvers(store, night.run_id).values():
        for key in keys:
            names = [event.name for event in store.history(key) if event.type == "checkpoint"]
            assert names == ["evidence", "decided", "done"]
            assert store.verify(key) == []
    before = store.at(night.asking, "evidence").state
    assert (before["category"], "choice" in before) == ("unknown", False)
    assert store.at(night.asking, "decided").state["choice"] == "ticket"


def test_every_message_is_done_and_in_one_report(airflow, store, night):
    told = told_of(store, night.run_id)
    assert Counter(str(record.state) for record in told) == {"done": len(SHOPS)}
    assert store.bus.stats("incidents").dead == 0
    assert Counter(failure["map_index"] for failure in reported(airflow, night.run_id)) == dict.fromkeys(
        range(6), 1
    )
    assert all(report["adds_up"] for report in kept(airflow, "report"))


def test_no_password_and_no_token_is_in_a_journal_a_log_or_a_file(airflow, store, night):
    files = list((airflow.home.logs / f"dag_id={TRIAGE}").rglob("*.log"))
    assert files
    for file in [*files, *(airflow.home.path / "incidents").rglob("*.*")]:
        if file.is_file():
            assert not re.search(r"eyJ[\w-]{10,}\.|\"password\"", file.read_text(errors="replace")), file
    for key in (night.asking, night.trying):
        assert "eyJ" not in json.dumps([event.data for event in store.history(key)])


def tell(airflow, **failure):
    """Publish what a notifier would, as a process of this Airflow: its project says who hears of it."""
    about = {"run_id": "r", "task_id": "t", "try_number": 1, "state": "failed", **failure}
    command = [sys.executable, "-m", "airflow", "agentic", "messages", "send"]
    done = subprocess.run(
        [*command, "--source", "test", "--topic", "airflow.task.failed", "--data", json.dumps(about)],
        env=airflow.env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_triage_does_not_hear_of_itself_and_needs_no_log_of_others(airflow, store, night):
    tell(airflow, dag_id=TRIAGE, exception={"type": "KeyError", "message": "'own'"})
    tell(airflow, dag_id="gone", exception={"type": "IndexError", "message": "'of a DAG that is gone'"})

    def seen():
        return [each for report in kept(airflow, "report") for each in report["incidents"]]

    wait_until(lambda: [each for each in seen() if "that is gone" in each["raised"]["message"]])
    told = [
        record.message.data["dag_id"]
        for record in store.bus.find(DeliveryQuery(mailbox="incidents", limit=1000))
    ]
    assert Counter(told) == {NIGHT: len(told) - 1, "gone": 1}
    assert not [each for report in kept(airflow, "report") for each in report["set_aside"]]
    assert not [each for each in seen() if "own" in each["raised"]["message"]]


def working(airflow):
    """The processes that do tasks of the triage."""
    path = f"/dags/{TRIAGE}/dagRuns/~/taskInstances"
    names = [each["id"] for each in airflow.client.get(path, {"state": "running"})["task_instances"]]
    found = []
    for process in psutil.process_iter(["cmdline"]):
        title = " ".join(process.info["cmdline"] or [])
        if "LocalExecutor" not in title and any(name in title for name in names):
            found.append(process)
    return found


def test_killed_anywhere_it_loses_nothing_and_does_nothing_twice(airflow, store, door, night):
    port, dice, kills = free_port(), random.Random(7), 0
    faults = {"north": "column", "west": "file"}
    run_id = failed_night(airflow, "night-2", faults=faults, warehouse=f"127.0.0.1:{port}")
    warehouse = Warehouse(port)
    try:
        deadline = time.monotonic() + 150
        while kills < KILLS and time.monotonic() < deadline and len(reported(airflow, run_id)) < len(SHOPS):
            time.sleep(dice.uniform(0.05, 0.6))
            for victim in dice.sample(found := working(airflow), min(1, len(found))):
                kill(victim)
                kills += 1
        wait_until(lambda: len(reported(airflow, run_id)) >= len(SHOPS), 150)
        for triage in triaged(airflow):
            assert airflow.client.wait(TRIAGE, triage, timeout=90) == "success"
        wait_until(lambda: len(warehouse.told) == 4)
    finally:
        warehouse.shutdown()
        warehouse.server_close()
    print(f"\n{kills} kills")
    assert kills >= KILLS // 2
    assert Counter(failure["map_index"] for failure in reported(airflow, run_id)) == dict.fromkeys(
        range(6), 1
    )
    assert Counter(str(record.state) for record in told_of(store, run_id)) == {"done": len(SHOPS)}
    cleared = Counter(
        tuple(each["task_ids"][0]) for each in door.bodies(CLEAR) if each["dag_run_id"] == run_id
    )
    # (A clear that was not heard of may be asked for again, as long as the task has not begun.)
    assert set(cleared) == {("load", SHOPS.index(shop)) for shop in ("south", "east", "centre", "harbour")}
    loads = [task for task in airflow.client.task_instances(NIGHT, run_id) if task.task_id == "load"]
    assert Counter((task.state, task.try_number) for task in loads) == {("success", 2): 4, ("failed", 1): 2}
    assert sorted(line["shop"] for line in warehouse.told) == ["centre", "east", "harbour", "south"]
    # The tickets of the night before are open: they are added to.
    for kind in ("KeyError", "FileNotFoundError"):
        [ticket] = (airflow.home.path / "incidents" / "tickets").glob(f"{kind}-*.md")
        text = ticket.read_text()
        assert text.count(f"{NIGHT}/{run_id}/load[") == 1
        assert f"{NIGHT}/{night.run_id}/load[" in text
