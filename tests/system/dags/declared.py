"""The DAGs of the workflows that the project file declares."""

from airflow_agentic.workflows import declared_dags

DAGS = declared_dags()  # Airflow reads files in which it finds the words `airflow` and `dag`.
