"""Measuring a model before it serves: which setting, which batch, how long a run takes."""
