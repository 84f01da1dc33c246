"""`python -m gateway.control`, started by the supervisor."""

from gateway.control.process import main

if __name__ == "__main__":
    main()
