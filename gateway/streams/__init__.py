"""From the spool to where others read: the lake, and later Feast, NATS and Kafka."""
