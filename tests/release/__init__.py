"""What a release is made of: ``make dist``, ``make reproducible``, ``make audit``."""
