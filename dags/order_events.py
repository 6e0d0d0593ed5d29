"""Orders are published once; who is interested says the project file (``agentic.yaml``).

Two of the six orders are large: a filter leads them to ``big-orders`` too, where they are approved. The ledger hears of
everything about orders, in order for each customer. `airflow agentic routes explain --topic orders.eu.created --data
'{"total": 250}'` says who would hear of an order and why.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import DAG, task

from airflow_agentic.messaging import Message
from airflow_agentic.operators.messaging import PublishOperator

ORDERS = [
    {"number": f"R-{number}", "customer": customer, "total": total}
    for number, (customer, total) in enumerate(
        [("ana", 20), ("bo", 250), ("ana", 999), ("cy", 5), ("bo", 60), ("ana", 99)], start=1
    )
]

with DAG(
    "order_events",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["agentic", "example"],
    doc_md=__doc__,
):
    publish = PublishOperator.partial(
        task_id="publish", topic="orders.eu.created", message_type="order.created"
    ).expand(data=ORDERS)

    @task.on_message(mailbox="big-orders")
    def approve(message: Message) -> Message:
        """Approve a large order: the ledger hears of it in one commit with the ack."""
        order: dict[str, Any] = message.data
        return Message(
            source="approver",
            topic="orders.eu.approved",
            type="order.approved",
            ordering_key=order["customer"],
            data=order,
        )

    @task.on_message(mailbox="ledger", batch=10)
    def book(messages: list[Message]) -> None:
        """Book what happened to orders; a batch is acked together."""
        for message in messages:
            print(f"{message.type} {message.data['number']}: {message.data['total']}")

    # (Types: the arguments come from the mailbox, not from the call.)
    publish >> approve() >> book()  # type: ignore[call-arg]
