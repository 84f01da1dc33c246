"""What the supervisor and its children are made of: sockets, locks, restarts, and what a child is born with."""
