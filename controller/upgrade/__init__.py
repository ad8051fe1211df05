"""The functional core: what should happen next, and why. No I/O, no clock, no asyncio."""
