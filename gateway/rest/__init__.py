"""REST: the wire door for inference, and an ordinary ASGI application for everything else."""
