"""Typed actors, and JSON Schemas of their inputs and outputs."""
