"""``MessageQueueTrigger(scheme="agentic", mailbox="…")``."""

from __future__ import annotations

from airflow.providers.common.messaging.providers.base_provider import BaseMessageQueueProvider
from airflow.triggers.base import BaseEventTrigger

from airflow_agentic.triggers.messaging import AgentMessageTrigger


class AgentMessageQueueProvider(BaseMessageQueueProvider):
    """Makes mailboxes message queues of Airflow; the keyword arguments are those of the trigger."""

    scheme = "agentic"

    def trigger_class(self) -> type[BaseEventTrigger]:
        """Return the trigger that receives a mailbox."""
        return AgentMessageTrigger
