"""Results of tasks: references to messages, claim checks for large results, and messages within one DAG run."""

from __future__ import annotations

MARK = "__agentic__"
"""Key by which a value of ours is known among those of tasks."""
