//go:build tools

// kubectl is a program of the same module, built alone and only where the machine has none;
// this import keeps what it needs in go.sum.
package main

import _ "k8s.io/kubernetes/cmd/kubectl"
