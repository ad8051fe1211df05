"""A Prometheus and an Alertmanager (Debian packages) over a running controller, and the dashboard drawn from them."""
