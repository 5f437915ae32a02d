"""The command line: one file a command, each with what it prints."""
