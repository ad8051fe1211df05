//go:build tools

// Package tools pins kwok and all that it needs in go.sum.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
