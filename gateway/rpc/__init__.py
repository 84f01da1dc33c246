"""Rooms 1 and 2 for gRPC: the Open Inference Protocol with Triton's extensions, health and reflection."""
