"""The shadow process: candidates on the rows that were served, apart from all who serve."""
