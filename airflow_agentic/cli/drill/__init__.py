"""A drill: runs of a DAG with faults, and whether the promises held."""
