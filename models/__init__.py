"""Computes: what holds memory and burns processor time; knows no endpoint, no traffic and no protocol."""
