"""Fault tolerance: guards that the whole fleet shares. Knows no Airflow.

Settings are values (:class:`Policy` and what it is made of); ``store.guard(policy, key)`` puts them to work.
"""

from __future__ import annotations

from airflow_agentic.config.policies import (
    Breaker,
    Budget,
    Bulkhead,
    FailureRule,
    Fallback,
    Policy,
    RateLimit,
    Retry,
)
from airflow_agentic.errors import Category
from airflow_agentic.resilience.admission import Subject
from airflow_agentic.resilience.breaker import BreakerState
from airflow_agentic.resilience.breakers import BreakerHandle, BreakerView
from airflow_agentic.resilience.deadlines import Deadline, check, deadline, remaining
from airflow_agentic.resilience.failures import Classifier, Failure, category_of
from airflow_agentic.resilience.guard import Attempt, Guard, spend
from airflow_agentic.resilience.guards import GuardOptions, Guards

__all__ = [
    "Attempt",
    "Breaker",
    "BreakerHandle",
    "BreakerState",
    "BreakerView",
    "Budget",
    "Bulkhead",
    "Category",
    "Classifier",
    "Deadline",
    "Failure",
    "FailureRule",
    "Fallback",
    "Guard",
    "GuardOptions",
    "Guards",
    "Policy",
    "RateLimit",
    "Retry",
    "Subject",
    "category_of",
    "check",
    "deadline",
    "remaining",
    "spend",
]
