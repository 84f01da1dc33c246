"""Metrics, logs and traces: what the gateway says about itself."""
