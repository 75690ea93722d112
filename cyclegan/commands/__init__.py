"""One file a verb: its arguments, what it calls, what it prints."""
