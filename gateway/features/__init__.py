"""Features by entity key: what a request leaves out is looked up in a Feast online store, by a process of its own."""
