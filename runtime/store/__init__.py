"""Implementations of the Store port: where the truth lives."""
