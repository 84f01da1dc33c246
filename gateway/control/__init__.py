"""The control process: takes revisions from written to live, moves aliases, feeds the lake, and answers the admin API."""
