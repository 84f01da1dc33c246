"""The durable side of a worker: append-only segments of framed records, one writer each."""
