"""Waiting for messages and signs of life in DAGs that really run."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred

from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging import Kind, Message
from airflow_agentic.sensors.messaging import HeartbeatSensor, MessageSensor


def beat(store, source="importer", seconds=3600.0):
    expires_at = datetime.now(UTC) + timedelta(seconds=seconds)
    store.bus.send(Message(source=source, kind=Kind.HEARTBEAT, expires_at=expires_at))


def known(dag_run, task_id="wait"):
    found = dag_run.xcom(task_id)
    return found["source"], found["alive"]


class TestHeartbeats:
    @pytest.mark.parametrize("deferrable", [True, False])
    def test_a_source_that_is_alive_is_not_waited_for(self, run_dag, store, deferrable):
        beat(store)
        with DAG("alive") as dag_:
            HeartbeatSensor(
                task_id="wait", source="importer", deferrable=deferrable, poke_interval=0.1, timeout=60
            )
        run = run_dag(dag_)
        assert known(run) == ("importer", True)
        assert run.xcom("wait")["due"] > run.xcom("wait")["at"]

    def test_it_waits_in_the_triggerer_until_the_source_is_alive(self, run_dag, store):
        with DAG("waking") as dag_:
            sensor = HeartbeatSensor(task_id="wait", source="{{ 'importer' }}", timeout=60)
        with pytest.raises(TaskDeferred) as deferral:
            sensor.execute({})
        assert deferral.value.trigger.serialize()[1] == {
            "source": "{{ 'importer' }}", "alive": True, "agentic_conn_id": None,
        }  # fmt: skip
        later = threading.Timer(4, beat, [store])
        later.start()
        run = run_dag(dag_)
        later.join()
        assert known(run) == ("importer", True)

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_it_waits_until_a_heartbeat_is_missed(self, run_dag, store, deferrable):
        beat(store, seconds=1.0)
        with DAG("missing") as dag_:
            HeartbeatSensor(
                task_id="wait", source="importer", until="missed", deferrable=deferrable, poke_interval=0.1,
                timeout=60,
            )  # fmt: skip
        run = run_dag(dag_)
        assert known(run) == ("importer", False)

    def test_a_source_that_was_never_heard_of_is_missed(self, run_dag, store):
        with DAG("unheard") as dag_:
            HeartbeatSensor(task_id="wait", source="nobody", until="missed", timeout=60)
        assert run_dag(dag_).xcom("wait") == {"source": "nobody", "alive": False, "at": None, "due": None}

    def test_any_other_end_is_refused_when_the_dag_is_parsed(self):
        with DAG("bad"), pytest.raises(ConfigurationError, match="'alive' or 'missed'"):
            HeartbeatSensor(task_id="wait", source="importer", until="dead")


class TestMessages:
    def test_in_a_worker_it_pokes(self, run_dag, store):
        later = threading.Timer(2, store.bus.send, [Message(source="t", recipient="bell")])
        with DAG("poking") as dag_:
            MessageSensor(task_id="wait", mailbox="bell", deferrable=False, poke_interval=0.2, timeout=60)
        later.start()
        run = run_dag(dag_)
        later.join()
        assert [each["source"] for each in run.xcom("wait")] == ["t"]
        assert store.bus.stats("bell").ready == 1

    def test_its_timeout_ends_the_wait_in_the_triggerer_too(self, store):
        with DAG("timeouts"):
            sensor = MessageSensor(task_id="wait", mailbox="bell", timeout=90)
        with pytest.raises(TaskDeferred) as deferral:
            sensor.execute({})
        assert timedelta(seconds=85) < deferral.value.timeout <= timedelta(seconds=90)
        with pytest.raises(TaskDeferred) as again:
            sensor.resume({}, {"mailbox": {}}, deadline=deferral.value.kwargs["deadline"] - 80)
        assert again.value.timeout < timedelta(seconds=12)
