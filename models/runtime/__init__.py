"""How a staged model is run: a session of ONNX Runtime here, or another server's model."""
