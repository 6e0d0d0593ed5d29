"""Outcomes of tasks and DAG runs, told."""
