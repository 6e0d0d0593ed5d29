"""The errors of the local Airflow; each message names what happened and the way out.

LocalAirflowError
├── HomeInUseError            another process uses the home now
├── UnknownEnvironmentError   the DAGs folder has no project file of that name
├── ProjectFileError          the project file cannot be used
├── DatabaseError             PostgreSQL did not start
├── ComponentDiedError        a part of Airflow ended by itself
├── BootTimeoutError          Airflow did not become healthy in time
├── ApiError                  the API server answered with an error, or not at all
└── WaitTimeoutError          a DAG or a run did not get there in time
"""

from __future__ import annotations

__all__ = [
    "ApiError",
    "BootTimeoutError",
    "ComponentDiedError",
    "DatabaseError",
    "HomeInUseError",
    "LocalAirflowError",
    "ProjectFileError",
    "UnknownEnvironmentError",
    "WaitTimeoutError",
]


class LocalAirflowError(Exception):
    """Base of all errors of this package."""


class HomeInUseError(LocalAirflowError):
    """Another process uses this home."""


class UnknownEnvironmentError(LocalAirflowError):
    """The DAGs folder has no project file of that name."""


class ProjectFileError(LocalAirflowError):
    """The project file cannot be used."""


class DatabaseError(LocalAirflowError):
    """PostgreSQL did not start."""


class ComponentDiedError(LocalAirflowError):
    """A component of Airflow ended by itself."""


class BootTimeoutError(LocalAirflowError):
    """Airflow did not become healthy in time."""


class WaitTimeoutError(LocalAirflowError):
    """A DAG or a run did not reach the wanted state in time."""


class ApiError(LocalAirflowError):
    """The API server refused a request, or could not be reached.

    Attributes:
        status: the HTTP status; 0 when there was no answer at all.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
