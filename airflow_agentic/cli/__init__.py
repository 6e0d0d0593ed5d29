"""The command group ``airflow agentic``: what a person on call asks a store, and does about it."""
