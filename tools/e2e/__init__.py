"""The controller as deployed, on one real node: `make e2e`.

`__main__` builds everything and enters namespaces of its own (mount, process, network), so that nothing that happens in
there touches this machine and ending one process ends all; `inside` is the first process in there; `node` is the real node:
containerd and a kubelet; `images` are those that the node runs. The tests are in tests/e2e.
"""
