"""A controller that upgrades the containerized drivers of a Kubernetes cluster node by node."""

__version__ = "0.1.0"
