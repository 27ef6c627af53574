"""The pure core: what a workflow means. No I/O, no clock, no asyncio, no logging."""
