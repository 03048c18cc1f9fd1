"""As it was trained."""

from __future__ import annotations

from reshelve.export.layers import FloatLayers
from reshelve.export.precisions.base import Precision
from reshelve.model.trained import TrainedModel


class Float32(Precision):
    """Four bytes a number."""

    name = "float32"

    def layers(self, model: TrainedModel) -> FloatLayers:
        return FloatLayers(model)
