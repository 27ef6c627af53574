"""Implementations of the Transport port: how the parts of the engine talk."""
