def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("ARCHITECT: FREEZE AT 05:05 UTC. Finish only what you hold, leave the tree consistent (ruff, mypy, tests), and send your final report now.")
