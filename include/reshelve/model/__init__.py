"""One description of a model, read by training, export, compression and serving."""
