"""The version of what the engine offers to plugins."""

PLUGIN_API_VERSION = "1.0"
"""The first number is raised by what breaks plugins, the second by what is added."""
