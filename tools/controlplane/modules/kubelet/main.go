// Command kubelet is the released kubelet, for the one real node of `make e2e`.
//
// It is a module of its own beside the control plane's, though their requirements are the same: a build is cached by its
// module's files, and whoever runs only the tests should not build this, nor build the control plane anew for its sake.
package main

import (
	"context"
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"

	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() { os.Exit(cli.Run(kubelet.NewKubeletCommand(context.Background()))) }
