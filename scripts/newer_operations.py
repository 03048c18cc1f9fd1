"""What this TensorFlow knows of operations and another one does not, for `reshelve.export.operations`.

python -m venv OTHER && OTHER/bin/pip install tensorflow==2.20.0
python scripts/newer_operations.py OTHER/bin/python
"""

from __future__ import annotations

import json
import subprocess
import sys

LIST = """
import json
import tensorflow as tf
from tensorflow.core.framework.op_def_pb2 import OpList
from tensorflow.python.client import pywrap_tf_session
known = OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
attributes = {op.name: sorted(attr.name for attr in op.attr) for op in known.op}
print(json.dumps([tf.__version__, tf.version.GRAPH_DEF_VERSION, attributes]))
"""


def known(python: str) -> tuple[str, int, dict[str, list[str]]]:
    """TensorFlow's version, the newest graphs it reads, and its operations with their attributes."""
    done = subprocess.run([python, "-c", LIST], stdout=subprocess.PIPE, text=True, check=True)
    version, producer, attributes = json.loads(done.stdout.splitlines()[-1])
    return version, producer, attributes


def main() -> None:
    """Print the other's versions, and what is newer here."""
    version, producer, there = known(sys.argv[1])
    here, _, ours = known(sys.executable)
    newer = {
        op: sorted(set(attributes) - set(there.get(op, [])))
        for op, attributes in ours.items()
        if op not in there or set(attributes) - set(there[op])
    }
    newer = {op: attributes if op in there else [] for op, attributes in newer.items()}
    print(json.dumps({"server": version, "producer": producer, "here": here, "newer": newer}, indent=2))


if __name__ == "__main__":
    main()
