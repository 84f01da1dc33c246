"""Load tests: scenarios that a user would run, and benchmarks side by side in one run."""
