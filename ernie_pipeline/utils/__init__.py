"""What everything stands on: the error for people, the reporter, the hub, math-verify, tables of text."""
