"""Workflows: trees of steps that start under a run id and advance as their jobs finish."""
