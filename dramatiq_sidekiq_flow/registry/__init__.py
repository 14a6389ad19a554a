"""Job classes of one language, published for the other."""
