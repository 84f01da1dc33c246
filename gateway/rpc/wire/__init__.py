"""Room 1 for gRPC, the wire door: HTTP/2 of our own (frames, headers, connection, without I/O), and gRPC's calls on it."""
