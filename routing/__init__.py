"""Decides: who gets which variant, who is mirrored, what the evidence says; no I/O, no clock, no chance."""
