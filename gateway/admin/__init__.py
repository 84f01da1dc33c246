"""The admin API: how people, the command line and programs change routes and see what they do."""
