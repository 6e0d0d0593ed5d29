"""The ``agentic`` scheme of Airflow's common message queues."""
