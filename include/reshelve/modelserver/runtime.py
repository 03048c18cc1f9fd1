"""What the model server needs of TensorFlow's Python: messages, types and records, without its Python API.

`import tensorflow` builds the whole Python API (Keras, gradients, datasets): 9 seconds of processor time and 300 MB that a
server has no use for. These come with 1.6 seconds and 400 MB in all, kernels included; graphs run by `tensorflow_c`.
"""

from __future__ import annotations

from reshelve.protocol.messages import bare_tensorflow

with bare_tensorflow():
    from tensorflow.core.framework import tensor_pb2, types_pb2
    from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
    from tensorflow.python.framework import dtypes, tensor_util
    from tensorflow.python.framework.errors_impl import DataLossError
    from tensorflow.python.lib.io.tf_record import tf_record_iterator
    from tensorflow_serving.apis import prediction_log_pb2

__all__ = [
    "DataLossError",
    "TensorShapeProto",
    "config_pb2",
    "dtypes",
    "meta_graph_pb2",
    "prediction_log_pb2",
    "tensor_pb2",
    "tensor_util",
    "tf_record_iterator",
    "types_pb2",
]
