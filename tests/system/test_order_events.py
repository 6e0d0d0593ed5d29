"""The example of published orders, on a booted Airflow: who gets what says the project file."""

from __future__ import annotations

from airflow_agentic.messaging.ports import DeliveryQuery


def test_orders_reach_whoever_subscribed_and_what_is_approved_reaches_the_ledger(airflow, store):
    airflow.client.wait_for_dag("order_events", timeout_s=60)
    run_id = airflow.client.trigger("order_events")
    assert airflow.client.wait("order_events", run_id, timeout=180) == "success"

    approved = airflow.client.xcom("order_events", run_id, "approve")
    booked = airflow.client.xcom("order_events", run_id, "book")
    assert (approved["handled"], approved["sent"]) == (2, 2)
    assert booked["handled"] == 8
    assert (booked["failed"], booked["rejected"], booked["open"]) == (0, 0, 0)

    conversation = DeliveryQuery(correlation_id=f"order_events:{run_id}")
    told = [record for record in store.bus.find(conversation) if record.mailbox == "ledger"]
    assert sorted(
        record.message.data["number"] for record in told if record.message.type == "order.approved"
    ) == [
        "R-2",
        "R-3",
    ]
    assert all(record.owner.startswith(f"order_events/{run_id}/book@") for record in told)
