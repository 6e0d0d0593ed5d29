"""Messages between agents: the envelope, the bus and what a store must do for it. Knows no Airflow."""

from __future__ import annotations

from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.messaging.delivery import Delivery, DeliveryRecord, DeliveryState, MailboxStats
from airflow_agentic.messaging.message import Kind, Message
from airflow_agentic.messaging.options import BusOptions, MailboxRules
from airflow_agentic.messaging.routing import Subscription

__all__ = [
    "BusOptions",
    "Delivery",
    "DeliveryRecord",
    "DeliveryState",
    "Kind",
    "MailboxRules",
    "MailboxStats",
    "Message",
    "MessageBus",
    "Subscription",
]
