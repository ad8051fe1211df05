"""Effects: events to requests, caches to snapshots, decisions to API calls."""
