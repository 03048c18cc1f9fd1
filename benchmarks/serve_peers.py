"""Other CPU runtimes with the weights of `bench_serve`, quantized by their own documented tools.

They come from a directory given by `--peers` (pip install --target DIR onnx onnxruntime openvino nncf), behind this project's own
packages on the path, and are no requirement of it. One that is not there, or fails, is named with its reason.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from reshelve.export.tokenizer import TokenBatch
from reshelve.model.trained import TrainedModel

Scorer = Callable[[TokenBatch], np.ndarray]
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_OPSET = 17


def peers(
    directory: Path | None, model: TrainedModel, rows: list[TokenBatch], threads: int, work: Path
) -> tuple[dict[str, Scorer], dict[str, str]]:
    """Scorers by name, and why the others are absent. `rows`: token ids to calibrate on."""
    makers: dict[str, Callable[[], Scorer]] = {
        "onnxruntime int8 dynamic": lambda: _onnxruntime(_optimised(work, model), work, None, threads),
        "onnxruntime int8 static": lambda: _onnxruntime(_optimised(work, model), work, rows, threads),
        "openvino int8": lambda: _openvino(_exported(work, model), rows, threads),
    }
    if directory is None:
        return {}, dict.fromkeys(makers, "no --peers DIR")
    sys.path.append(str(directory))
    found, absent = {}, {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except Exception as error:  # noqa: BLE001 - whatever another project's tool raises is a reason to tell
            absent[name] = f"{type(error).__name__}: {error}"[:200]
    return found, absent


def _exported(work: Path, model: TrainedModel) -> Path:
    """The model as Hugging Face has it (every token through every layer, eager attention), in ONNX."""
    from transformers import BertConfig, BertModel

    path = work / "model.onnx"
    if path.is_file():
        return path
    config = BertConfig(**model.document.architecture.model_dump(), attn_implementation="eager")
    encoder = BertModel(config, add_pooling_layer=False)
    own = {name: torch.from_numpy(t) for name, t in model.tensors.items()}
    encoder.load_state_dict(
        {name.removeprefix("encoder."): t for name, t in own.items() if name.startswith("encoder.")},
        strict=False,
    )

    class Scores(torch.nn.Module):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
            # The mask as attention adds it: the library's own building of it does not survive the trace.
            added = (1.0 - mask[:, None, None, :].float()) * -10000.0
            states = encoder.embeddings(input_ids=ids, token_type_ids=types)
            for layer in encoder.encoder.layer:
                states = layer(states, added)
                states = states[0] if isinstance(states, tuple) else states
            return (states[:, 0] @ own["head.weight"].T + own["head.bias"])[:, 0]

    module = Scores().eval()
    module.add_module("encoder", encoder)
    example = torch.ones(2, 8, dtype=torch.long)
    axes = {0: "batch", 1: "length"}
    with torch.no_grad():
        torch.onnx.export(
            module, (example, example, example), str(path), input_names=list(_INPUTS), output_names=["logits"],
            dynamic_axes={**dict.fromkeys(_INPUTS, axes), "logits": {0: "batch"}}, opset_version=_OPSET,
            dynamo=False,
        )  # fmt: skip
    return path


def _optimised(work: Path, model: TrainedModel) -> Path:
    """ONNX Runtime's own transformer optimizer: attention, layer norm and GELU as single operations."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    path, shape = work / "optimised.onnx", model.document.architecture
    if not path.is_file():
        found = optimizer.optimize_model(
            str(_exported(work, model)),
            "bert",
            num_heads=shape.num_attention_heads,
            hidden_size=shape.hidden_size,
            optimization_options=FusionOptions("bert"),
        )
        found.save_model_to_file(str(path))
    return path


def _feeds(batch: TokenBatch) -> dict[str, np.ndarray]:
    mask = np.arange(batch.ids.shape[1])[None, :] < batch.lengths[:, None]
    types = np.zeros_like(batch.ids) if batch.types is None else batch.types
    return {name: a.astype(np.int64) for name, a in zip(_INPUTS, (batch.ids, mask, types), strict=True)}


def _onnxruntime(source: Path, work: Path, rows: list[TokenBatch] | None, threads: int) -> Scorer:
    import onnx
    import onnxruntime as ort
    from onnxruntime import quantization as q

    # The optimizer's own operations have no shape inference: the quantizer is told what their outputs are.
    typed = {"DefaultTensorType": onnx.TensorProto.FLOAT}

    if rows is None:
        path = work / "dynamic.onnx"
        q.quantize_dynamic(source, path, per_channel=True, weight_type=q.QuantType.QInt8, extra_options=typed)
    else:
        path = work / "static.onnx"

        class Reader(q.CalibrationDataReader):
            def __init__(self) -> None:
                self.rows: Iterator[TokenBatch] = iter(rows)

            def get_next(self) -> dict[str, np.ndarray] | None:
                batch = next(self.rows, None)
                return None if batch is None else _feeds(batch)

        q.quantize_static(
            source, path, Reader(), per_channel=True, weight_type=q.QuantType.QInt8, extra_options=typed,
            op_types_to_quantize=["MatMul", "Attention"],
        )  # fmt: skip
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, _feeds(batch))[0]


def _openvino(source: Path, rows: list[TokenBatch], threads: int) -> Scorer:
    os.environ.setdefault("NNCF_TELEMETRY", "0")
    import nncf
    import openvino as ov

    model = ov.convert_model(str(source))
    data = nncf.Dataset(rows, _feeds)
    small = nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows))
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = ov.Core().compile_model(small, "CPU", settings)
    request = compiled.create_infer_request()
    return lambda batch: request.infer(_feeds(batch))[0]
