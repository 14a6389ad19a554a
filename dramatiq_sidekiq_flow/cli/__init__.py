"""Command line ``sidekiq-flow``, on click and rich, which only this package imports."""
