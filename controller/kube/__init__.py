"""A small client-go that knows nothing of upgrades."""
