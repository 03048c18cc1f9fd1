"""Shows a wrong ranker file as an import error of its own in Airflow (it holds no DAG).

`retrain.py` and `release.py` leave wrong files out, so that one mistake never takes the DAGs of the others away.
"""

from __future__ import annotations

from reshelve.errors import ConfigurationError
from reshelve_airflow.policies import rankers

problems = rankers()[1]
if problems:
    raise ConfigurationError(
        "; ".join(error.headline for error in problems), "\n".join(e.detail for e in problems if e.detail)
    )
