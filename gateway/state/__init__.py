"""The state database: revisions of routes and the audit; written by control alone, read by every process."""
