"""Two DAGs that messages start: one when its mailbox is announced, one with each message as its event."""

from __future__ import annotations

import pendulum
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_agentic.triggers.messaging import AgentMessageTrigger

for name, deliver in (("announced", False), ("delivered", True)):
    watcher = AssetWatcher(name=f"{name}_watcher", trigger=AgentMessageTrigger(mailbox=name, deliver=deliver))
    asset = Asset(name=f"{name}_mailbox", watchers=[watcher])
    with DAG(name, schedule=[asset], start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False):
        EmptyOperator(task_id="started")
