// What manifests/monitoring and docs/metrics-access.md use of others. Only the files that foreign.py names are taken
// from these modules, nothing is compiled; so no tools.go imports them, and `go mod tidy` would take them away.
module driver-upgrade.local/tools/definitions

go 1.26.0

require (
	github.com/cert-manager/cert-manager v1.20.0
	github.com/prometheus-operator/prometheus-operator v0.85.0
)
