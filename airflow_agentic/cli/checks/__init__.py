"""What ``airflow agentic doctor`` looks at. A check returns a finding; it changes nothing and never raises."""

from __future__ import annotations

from airflow_agentic.cli.checks.finding import Finding, Result, examined

__all__ = ["Finding", "Result", "examined"]
