"""What people do to tasks on a booted Airflow: stop them, clear them."""

from __future__ import annotations

from waiting import wait_until

from airflow_agentic.messaging.ports import DeliveryQuery


def test_marking_a_running_task_as_failed_shuts_its_agent_down(airflow, store):
    airflow.client.wait_for_dag("long_walk", timeout_s=60)
    run_id = airflow.client.trigger("long_walk")
    wait_until(lambda: (status := store.agents.get("walker")) and str(status.state) == "processing")
    airflow.client.patch(
        f"/dags/long_walk/dagRuns/{run_id}/taskInstances/walk",
        {"new_state": "failed", "include_upstream": False},
    )
    wait_until(lambda: str(store.agents.get("walker").state) == "shutdown")
    status = store.agents.get("walker")
    assert status.reason == "the task was killed"
    assert status.live_instances == 0


def test_clearing_a_task_sends_its_message_again(airflow, store):
    airflow.client.wait_for_dag("one_letter", timeout_s=60)
    run_id = airflow.client.trigger("one_letter")
    assert airflow.client.wait("one_letter", run_id) == "success"

    def second_try():
        (task,) = airflow.client.task_instances("one_letter", run_id)
        return (task.try_number, task.state) == (2, "success")

    body = {"dag_run_id": run_id, "dry_run": False, "reset_dag_runs": True, "only_failed": False}
    airflow.client.post("/dags/one_letter/clearTaskInstances", body)
    wait_until(second_try)
    letters = store.bus.find(DeliveryQuery(mailbox="letters", correlation_id=f"one_letter:{run_id}"))
    assert len({letter.message.id for letter in letters}) == 2
