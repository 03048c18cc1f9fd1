"""The local model server: TensorFlow Serving's two APIs over real SavedModels."""
