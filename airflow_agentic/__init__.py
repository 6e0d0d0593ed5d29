"""Apache Airflow provider for agents as production work.

Airflow imports this module before its own configuration exists, so it imports nothing.
"""

__version__ = "0.1.0"
