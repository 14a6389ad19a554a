"""Schemas of types: conversion from and to JSON, JSON Schema, and errors with paths."""

from .schema import Schema

__all__ = ["Schema"]
