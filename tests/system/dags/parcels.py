"""Each message of the mailbox `parcels` is an event: `deliver=True`, the ack mode of shared streams."""

from __future__ import annotations

import pendulum
from airflow.providers.common.messaging.triggers.msg_queue import MessageQueueTrigger
from airflow.sdk import Asset, AssetWatcher, dag, get_current_context, task

trigger = MessageQueueTrigger(scheme="agentic", mailbox="parcels", deliver=True)
parcels = Asset("parcels", watchers=[AssetWatcher(name="parcels", trigger=trigger)])


@dag(schedule=[parcels], start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False)
def parcels_delivered():
    @task
    def unpack():
        events = get_current_context()["triggering_asset_events"]
        payloads = [event.extra["payload"] for several in events.values() for event in several]
        return [payload["message"]["data"] for payload in payloads]

    unpack()


parcels_delivered()
