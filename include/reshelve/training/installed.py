"""Whether Horovod is there: it is the one package that pip alone cannot install, for it is compiled against torch."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from reshelve.errors import ConfigurationError


def need_horovod() -> None:
    """Raise ConfigurationError, which names the script to run, where Horovod is missing or was built without torch.

    Nothing is imported: that would load torch.
    """
    package = find_spec("horovod")
    if package is None:
        raise _run_the_script("Horovod is not installed")
    folders = [Path(folder) for folder in package.submodule_search_locations or ()]
    if not any(any(folder.glob("torch/mpi_lib_v2*.so")) for folder in folders):
        raise _run_the_script("Horovod was installed without torch support")


def _run_the_script(problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"{problem}: pip alone cannot build it, run scripts/setup.sh",
        f"or, for this environment: scripts/build_horovod.sh {sys.executable} .wheels && "
        f"{sys.executable} -m pip install --no-deps --force-reinstall .wheels/horovod-*/horovod-*.whl",
    )
