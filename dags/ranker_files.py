"""Shows wrong ranker, mapping and rule files as an import error of its own in Airflow (it holds no DAG).

The DAG files leave wrong files out, so that one mistake never takes the DAGs of the others away. What was wrong is what
the forms say, and what those files found when they made the DAGs: they are run once more here.
"""

from __future__ import annotations

import runpy
from pathlib import Path

from reshelve.errors import ConfigurationError
from reshelve_airflow.policies import rankers, source_problems

problems = [*rankers()[1], *source_problems()]
for made in ("retrain", "release", "monitor", "housekeeping"):
    problems += runpy.run_path(str(Path(__file__).with_name(f"{made}.py")))["PROBLEMS"]
if problems:
    raise ConfigurationError(
        "; ".join(dict.fromkeys(error.headline for error in problems)),
        "\n".join(dict.fromkeys(error.detail for error in problems if error.detail)),
    )
