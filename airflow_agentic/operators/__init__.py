"""Operators: what a DAG author can use."""
