"""What each language knows of the other's job classes."""
