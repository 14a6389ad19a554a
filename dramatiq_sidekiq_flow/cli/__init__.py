"""The commands: what either language needs to know of the other, as files."""
