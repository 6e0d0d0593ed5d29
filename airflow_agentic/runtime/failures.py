"""What failures mean in this project, and what Airflow is told of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from airflow_agentic.errors import AgenticError, Category
from airflow_agentic.resilience.failures import Classifier
from airflow_agentic.runtime.configuration import project


@contextlib.contextmanager
def airflow_failures() -> Iterator[None]:
    """Turn errors that a retry cannot help into Airflow's failure that is not retried.

    Of errors that are not ours the provider knows a few, and the project file may say more (``failures:``).

    Raises:
        AirflowFailException: In place of such an error, with its text.
    """
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    try:
        yield
    except AgenticError as error:
        if error.retry_helps:
            raise
        raise AirflowFailException(f"[{error.category}] {type(error).__name__}: {error}") from error
    except AirflowException:
        raise
    except Exception as error:
        category = failures().failure(error).category
        if category in (Category.PERMANENT, Category.CONFIGURATION):
            raise AirflowFailException(f"[{category}] {type(error).__name__}: {error}") from error
        raise


def failures() -> Classifier:
    """Return what failures mean in this project; what the provider thinks, if the project cannot be read."""
    try:
        return Classifier(project().failures)
    except AgenticError:
        # Whatever is wrong with the project file is told elsewhere; a failure must still be judged.
        return Classifier()
