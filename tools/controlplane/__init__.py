"""A real Kubernetes control plane on one machine, without containers.

`build` compiles the programs from their Go modules once; `cluster.ControlPlane` runs them on loopback ports and
stops them whatever happens; `api.Api` is a small admin client; `scene` makes the objects of a test cluster; kwok,
with the stages in `stages/`, plays the kubelets; `audit` reads what the API server saw.
"""
