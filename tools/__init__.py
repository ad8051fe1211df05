"""Tools of the project that are not part of the controller: the local control plane, demo and benchmarks."""
