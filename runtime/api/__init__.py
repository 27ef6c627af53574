"""The aiohttp application: routes, problem responses, request parsing."""
