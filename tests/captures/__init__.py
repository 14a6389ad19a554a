"""What the command line prints in a terminal, to look at: ``make captures``."""
