"""Airflow hooks: connections in, stores and transports out."""
