"""The graph's products in int8, by oneDNN's `_QuantizedMatMul`, a kernel of stock TensorFlow.

Activations between the two products of a feed-forward stay eight bits: the first product applies GELU
and rounds, the second adds the residual. The others are rounded by one multiplication (smoothing and
scale at once) and QuantizeV2.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.framework import op_def_library

from reshelve.export.layers import FloatLayers, grows, held
from reshelve.model.int8 import QuantizedModel
from reshelve.model.trained import TrainedModel


class Int8Layers(FloatLayers):
    """Sites that the quantized model has are int8; the others stay float32."""

    def __init__(self, model: TrainedModel, quantized: QuantizedModel) -> None:
        super().__init__(model)
        self.quantized = quantized

    def embed(self, ids: tf.Tensor) -> tf.Tensor:
        words = self.model.encoder.words
        if not self.quantized.has(words):
            return super().embed(ids)
        rows = tf.gather(held(self.quantized[f"{words}.weight"]), ids)
        return tf.cast(rows, tf.float32) * tf.gather(held(self.quantized[f"{words}.step"]), ids)

    def dense(self, rows: tf.Tensor, part: str) -> tf.Tensor:
        if not self.quantized.has(part):
            return super().dense(rows, part)
        return self._from_float(rows, part)

    def project_onto(self, rows: tf.Tensor, site: str, residual: tf.Tensor) -> tf.Tensor:
        *before, last = self.model.parts(site)
        for part in before:
            rows = self.dense(rows, part)
        return self._from_float(rows, last, residual)

    def feed_forward(self, rows: tf.Tensor, layer: str) -> tf.Tensor:
        *before, first = self.model.parts(f"{layer}.intermediate")
        second, *after = self.model.parts(f"{layer}.output")
        if not self.quantized.takes_bytes(second):
            return super().feed_forward(rows, layer)
        inner = rows
        for part in before:
            inner = self.dense(inner, part)
        middle = self._into(second, self._rounded(inner, first), first, "GeluExact")
        if not after:
            return self._product(middle, second, tf.quint8, self._ranges(second), rows)
        return self._from_float(
            self._product(middle, second, tf.quint8, self._ranges(second)), after[0], rows
        )

    def next_item(self, pooled: tf.Tensor) -> tf.Tensor:
        if not self.quantized.has("items"):
            return super().next_item(pooled)
        middle = self._into("items", self._rounded(pooled, "hidden"), "hidden", "Relu")
        return self._product(middle, "items", tf.quint8, self._ranges("items"))

    def _from_float(self, rows: tf.Tensor, site: str, residual: tf.Tensor | None = None) -> tf.Tensor:
        """rows · W + b (+ residual) of float rows, in the range of calibration or, where there is none, in the batch's own."""
        if self.quantized.has_range(site):
            return self._product(self._rounded(rows, site), site, tf.qint8, self._ranges(site), residual)
        smooth = rows * tf.constant(self.quantized[f"{site}.smooth"])
        reach = tf.maximum(tf.reduce_max(tf.abs(smooth)), 1e-6)
        steps = tf.cast(tf.round(smooth * (127.0 / reach)), tf.qint8)
        return self._product(steps, site, tf.qint8, [-reach, reach, *self._weight_range(site)], residual)

    def _rounded(self, rows: tf.Tensor, site: str) -> tf.Tensor:
        # The multiplication carries smoothing and scale at once, so what is left to round is in [-127, 127].
        steps = rows * tf.constant(self.quantized[f"{site}.step"])
        return tf.raw_ops.QuantizeV2(
            input=steps, min_range=-127.0, max_range=127.0, T=tf.qint8, mode="SCALED", round_mode="HALF_TO_EVEN",
            narrow_range=True,
        ).output  # fmt: skip

    def _into(self, following: str, rows: tf.Tensor, site: str, activation: str) -> tf.Tensor:
        """activation(rows · W + b) as quint8 in the range that `following` takes in."""
        low, high = self.quantized[f"{following}.input"]
        return _quantized_matmul(
            [rows, *self._weights(site), *self._ranges(site), tf.constant(low), tf.constant(high)],
            (tf.qint8, tf.quint8), ["BiasAdd", activation, "Requantize"], f"{site}.int8",
        )  # fmt: skip

    def _product(
        self,
        rows: tf.Tensor,
        site: str,
        kind: tf.DType,
        ranges: list[tf.Tensor],
        residual: tf.Tensor | None = None,
    ) -> tf.Tensor:
        added = [] if residual is None else [residual]
        fused = ["BiasAdd", *(["Add"] if added else []), "Dequantize"]
        inputs = [rows, *self._weights(site), *added, *ranges]
        return _quantized_matmul(inputs, (kind, tf.float32), fused, f"{site}.int8")

    def _weights(self, site: str) -> list[tf.Tensor]:
        # Kept as int8 and reinterpreted: a qint8 constant is written one varint a number, ten bytes if negative.
        weight = tf.bitcast(self.weight(f"{site}.weight", self.quantized[f"{site}.weight"]), tf.qint8)
        name = f"{site}.bias"
        bias = self.quantized[name]
        return [weight, self.weight(name, bias) if grows(name) else tf.constant(bias)]

    def _ranges(self, site: str) -> list[tf.Tensor]:
        low, high = self.quantized[f"{site}.input"]
        return [tf.constant(low), tf.constant(high), *self._weight_range(site)]

    def _weight_range(self, site: str) -> list[tf.Tensor]:
        name = f"{site}.range"
        reach = self.quantized[name]
        if grows(name):
            return [-self.weight(name, reach), self.weight(name, reach)]
        return [tf.constant(-reach), tf.constant(reach)]


def _quantized_matmul(
    inputs: list[tf.Tensor], kinds: tuple[tf.DType, tf.DType], fused: list[str], name: str
) -> tf.Tensor:
    """The op by its definition: it begins with an underscore, so TensorFlow has no Python wrapper for it,
    and it needs a name of its own because its type is no legal scope."""
    taken, given = kinds
    modes = {tf.qint8: "SCALED", tf.quint8: "MIN_FIRST", tf.float32: "SCALED"}
    outputs = op_def_library.apply_op(
        "_QuantizedMatMul",
        device_inputs=inputs,
        host_inputs=[],
        Tdevice_outputs=[given] if given == tf.float32 else [given, tf.float32, tf.float32],
        Thost_outputs=[],
        T1=taken,
        T2=tf.qint8,
        Tbias=tf.float32,
        U=tf.float32,
        Tout=given,
        transpose_a=False,
        transpose_b=False,
        is_weight_const=True,
        is_bias_const=True,
        fused_ops=fused,
        input_quant_mode=modes[taken],
        output_quant_mode=modes[given],
        leakyrelu_alpha=0.2,
        name=name,
    )
    device_outputs, _ = outputs
    return device_outputs[0]
