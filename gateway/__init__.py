"""Talks: everything that touches the outside, and the only package that knows a protocol."""
