"""What the commands of `runoff` do; `gateway/cli.py` only names them and their options."""
