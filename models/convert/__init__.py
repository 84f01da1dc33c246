"""Flavor to ONNX, with a parity certificate; always in a process of its own (`python -m models.convert REQUEST.json`)."""
