package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// Namespaces belong to threads. The first thread stays in the machine's own namespaces, because
// `/proc/self` shows those of the first thread.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	for _, kind := range everyPlugin() {
		fmt.Printf("ours: %s is %s\n", kind, where(ours().path, kind))
	}
	status := m.Run()
	counts.print()
	os.Exit(status)
}

// A side is a set of plugins that cases run.
type side struct {
	label string
	// The directories in which a runtime looks for plugins, in order.
	path []string
}

// The binaries under test. Plugins that the project does not ship are taken from the reference suite.
func ours() side {
	return side{"ours", []string{ourDir(), referenceDir()}}
}

// The plugins of containernetworking.
func reference() side {
	return side{"go", []string{referenceDir()}}
}

// Runs a test with the plugins of either side.
func onSides(t *testing.T, test func(*testing.T, side)) {
	t.Parallel()
	for _, s := range []side{ours(), reference()} {
		t.Run(s.label, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

func ourDir() string {
	return directory("PODWIRE_BIN", "dist/bin")
}

func referenceDir() string {
	return directory("GO_PLUGINS", "target/reference/bin")
}

// The directory in an environment variable, or else the one in the workspace.
func directory(variable, fallback string) string {
	dir := os.Getenv(variable)
	if dir == "" {
		dir = filepath.Join("../..", fallback)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		panic(err)
	}
	return dir
}

// The file that a runtime would run, or "missing".
func where(path []string, program string) string {
	for _, dir := range path {
		file := filepath.Join(dir, program)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return file
		}
	}
	return "missing"
}

// What the cases need besides plugins, to make nodes and to read their state.
func unfit() string {
	if os.Geteuid() != 0 {
		return "not root"
	}
	for _, tool := range []string{"ip", "tc", "iptables-save", "ip6tables-save", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err.Error()
		}
	}
	return ""
}

// The first of these programs that a runtime would not find.
func missing(path []string, programs []string) string {
	for _, program := range programs {
		if program == "conflist" {
			path = []string{ourDir()}
		}
		if where(path, program) == "missing" {
			return fmt.Sprintf("no %s in %s", program, strings.Join(path, " or "))
		}
	}
	return ""
}

// A tally has the numbers of passed and failed cases.
type tally struct {
	sync.Mutex
	passed, failed int
}

var counts tally

// Adds the outcome of a case and prints it.
func (c *tally) add(t *testing.T) {
	c.Lock()
	defer c.Unlock()
	outcome := "ok"
	switch {
	case t.Failed():
		outcome = "FAILED"
		c.failed++
	case t.Skipped():
		outcome = "ignored"
	default:
		c.passed++
	}
	fmt.Printf("test %s ... %s\n", t.Name(), outcome)
}

// Prints the closing line, in the form of the project's other test programs.
func (c *tally) print() {
	outcome := "ok"
	if c.failed > 0 {
		outcome = "FAILED"
	}
	fmt.Printf("test result: %s. %d passed; %d failed\n", outcome, c.passed, c.failed)
}

// A known failure of the reference's plugins: what they do instead, and a part of the case's error
// then.
type known struct{ reason, says string }

// An error unless a case failed in the known way.
func (k known) isShownBy(err error) error {
	switch {
	case err == nil:
		return fmt.Errorf("the reference passes now, but we say: %s", k.reason)
	case !strings.Contains(err.Error(), k.says):
		return fmt.Errorf("the reference fails without saying %q, but we say: %s\n%w", k.says, k.reason, err)
	}
	return nil
}

// Runs a case on a node of its own, in parallel with other cases.
//
// If plugins of the reference are known to fail it, fails says why and with which error; the case then
// fails if they pass.
func (s side) run(t *testing.T, name string, needs []string, fails *known, do func(*node) error) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		t.Cleanup(func() { counts.add(t) })
		for _, reason := range []string{unfit(), missing(s.path, needs)} {
			if reason != "" {
				unable(t, reason)
			}
		}
		err := onNode(s, do)
		if fails != nil {
			err = fails.isShownBy(err)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// Ends a case that cannot run on this machine. `cargo xtask test` reads the line, and decides by
// tests/testbed/src/skip.rs whether the case counts as skipped or as failed.
func unable(t *testing.T, reason string) {
	fmt.Printf("lacks: %s: %s\n", t.Name(), reason)
	t.Skip(reason)
}
