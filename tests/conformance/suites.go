//go:build suites

// Package conformance contains only tests. Nothing is built from this file: it makes `go mod tidy`
// keep what the reference's own tests need, which TestReferenceSuite compiles and runs.
package conformance

import (
	_ "github.com/containernetworking/plugins/integration"
	_ "github.com/containernetworking/plugins/pkg/testutils/echo/client"
	_ "github.com/containernetworking/plugins/pkg/testutils/echo/server"
	_ "github.com/containernetworking/plugins/plugins/meta/firewall"
	_ "github.com/containernetworking/plugins/plugins/meta/portmap"
)
