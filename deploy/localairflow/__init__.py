"""A real Airflow on this machine: to try the examples, and for the system tests.

``PYTHONPATH=deploy python -m localairflow demo|up|down|status``, or :class:`~localairflow.stack.LocalAirflow`.
"""
