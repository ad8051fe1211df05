module driver-upgrade.local/tools/certificates

go 1.26.0
