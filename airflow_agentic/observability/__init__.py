"""What is measured. Knows no Airflow."""

from __future__ import annotations

from airflow_agentic.observability.metrics import Metrics, NoMetrics

__all__ = ["Metrics", "NoMetrics"]
