"""Command line: stubs, registry file, bridge, release."""
