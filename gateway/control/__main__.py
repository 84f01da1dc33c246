"""`python -m gateway.control`, started by the supervisor."""

from typing import Final

from gateway.control.process import main
from models.niceness import step_back

NICENESS: Final = 5
"""Compiling, staging and the lake wait for requests: a worker that wakes takes the core at once, not after a slice of 3 ms."""

if __name__ == "__main__":
    step_back(NICENESS)
    main()
