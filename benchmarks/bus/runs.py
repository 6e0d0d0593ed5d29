"""From a message that is sent to the DAG run that it starts, on a real Airflow."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_agentic.messaging.bus import MessageBus
from benchmarks.bus.ours import LEASE, message, opened
from benchmarks.bus.rounds import Round
from benchmarks.bus.section import Plan, Section

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "deploy"))

if TYPE_CHECKING:
    from localairflow.client import ApiClient

_SENDS = 20
_WARM_UP = 2
_LONGEST_S = 30.0
_POLL_S = 0.05
_KINDS = {
    "announced": "AssetWatcher + AgentMessageTrigger: the mailbox is announced",
    "delivered": "the same with deliver=True: the message is the event",
}


def runs(plan: Plan) -> Section:
    """Send messages, one after the other, and see when the run of each was queued."""
    from localairflow.stack import LocalAirflow

    section = Section(
        "From send to the DAG run queued, by Airflow's own clock, on the Airflow of `make demo`"
    )
    # Not the plan's folder: PostgreSQL runs as a user of its own there.
    with (
        tempfile.TemporaryDirectory(prefix="agentic-bench-", ignore_cleanup_errors=True) as home,
        LocalAirflow(Path(home), HERE / "dags") as airflow,
        opened(airflow.store_url) as store,
    ):
        for dag_id in _KINDS:
            airflow.client.wait_for_dag(dag_id, timeout_s=60)
        dice = random.Random(_SENDS)  # noqa: S311  # not to beat in time with those who poll
        for number in range(_WARM_UP + plan.some(_SENDS * 10) // 10):
            seconds = {}
            for dag_id in _KINDS:
                time.sleep(dice.uniform(1.5, 3))
                seconds[dag_id] = _seconds(airflow.client, store.bus, dag_id)
            plan.say(", ".join(f"{dag_id} {passed:.2f} s" for dag_id, passed in seconds.items()))
            if number >= _WARM_UP:
                section.rounds.counted.append(Round(seconds, []))
    for dag_id, text in _KINDS.items():
        section.add("send to run queued", text, dag_id, "s")
        section.within(f"send to DAG run queued, {dag_id}", 2.0, "s", dag_id)
    return section


def _seconds(client: ApiClient, bus: MessageBus, dag_id: str) -> float:
    before = {run["dag_run_id"] for run in client.dag_runs(dag_id)}
    sent = datetime.now(UTC)
    bus.send(message(dag_id))
    deadline = time.monotonic() + _LONGEST_S
    while time.monotonic() < deadline:
        fresh = [run for run in client.dag_runs(dag_id) if run["dag_run_id"] not in before]
        if fresh and fresh[0]["queued_at"]:
            # What was announced is still there, what was delivered is not.
            bus.ack(*bus.receive(dag_id, lease=LEASE))
            return (datetime.fromisoformat(fresh[0]["queued_at"]) - sent).total_seconds()
        time.sleep(_POLL_S)
    raise AssertionError(f"the message to {dag_id} started no run within {_LONGEST_S:.0f} s")
