"""Implementations of the ports. ``open_store`` is the way in."""

from __future__ import annotations

from airflow_agentic.stores.store import Store, open_store

__all__ = ["Store", "open_store"]
