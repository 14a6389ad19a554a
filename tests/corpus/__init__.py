"""Bad input as data files: members and keys, each with what becomes of it.  README.md says the format."""
