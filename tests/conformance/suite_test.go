package conformance

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const referenceModule = "github.com/containernetworking/plugins/"

// A suite is a package of the reference whose own tests find plugins by name, as a runtime does, so
// that they can run any plugins.
type suite struct {
	pkg string
	// A part of the names of these tests; the others call the functions of the package.
	focus string
	// The plugins that these specs run.
	plugins []string
}

var suites = []suite{
	{"plugins/meta/portmap", "portmap integration tests", []string{"portmap", "ptp", "host-local"}},
	{"plugins/meta/firewall", "firewall integration tests", []string{"firewall", "bridge", "host-local"}},
	{"integration", "using cnitool", []string{"bandwidth", "bridge", "ptp", "host-local"}},
}

// The integration tests of the reference, unmodified. They do not run in parallel, because some
// measure time.
func TestReferenceSuite(t *testing.T) {
	programs := t.TempDir()
	for _, s := range []side{ours(), reference()} {
		t.Run(s.label, func(t *testing.T) {
			for _, it := range suites {
				t.Run(filepath.Base(it.pkg), func(t *testing.T) { s.suite(t, it, programs) })
			}
		})
	}
}

func (s side) suite(t *testing.T, it suite, programs string) {
	var specs []spec
	t.Cleanup(func() {
		if specs == nil {
			counts.add(t)
		}
	})
	// The plugins of the other side must not be used instead.
	for _, reason := range []string{unfit(), missing(s.path[:1], it.plugins)} {
		if reason != "" {
			unable(t, reason)
		}
	}
	program, home, err := it.compile(programs)
	if err != nil {
		unable(t, err.Error())
	}
	err = onNode(s, func(n *node) (err error) {
		specs, err = it.run(n, program, home)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range specs {
		t.Run(spec.Name, func(t *testing.T) {
			t.Cleanup(func() { counts.add(t) })
			switch spec.State {
			case "passed":
			case "skipped":
				unable(t, spec.Failure.Message)
			default:
				t.Errorf("%s: %s\n%s", spec.State, spec.Failure.Message, spec.Output)
			}
		})
	}
}

// A spec and its outcome, as Ginkgo reports it.
type spec struct {
	Containers []string `json:"ContainerHierarchyTexts"`
	Name       string   `json:"LeafNodeText"`
	Kind       string   `json:"LeafNodeType"`
	State      string   `json:"State"`
	Output     string   `json:"CapturedGinkgoWriterOutput"`
	Failure    struct{ Message string }
}

// Compiles the package's tests if they do not exist: this needs modules, and so the machine's own
// network. Returns the program and the package's directory.
func (it suite) compile(programs string) (program, home string, err error) {
	program = filepath.Join(programs, filepath.Base(it.pkg))
	if _, err := os.Stat(program); err != nil {
		compile := exec.Command("go", "test", "-c", "-o", program, referenceModule+it.pkg)
		if _, err := output(compile); err != nil {
			return "", "", err
		}
	}
	home, err = output(exec.Command("go", "list", "-f", "{{.Dir}}", referenceModule+it.pkg))
	return program, strings.TrimSpace(home), err
}

// Runs the tests on a node that has an address outside.
func (it suite) run(n *node, program, home string) ([]spec, error) {
	const root = "/run/suite"
	module, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	script := "mkdir -p " + root + "/bin; cd " + root + "\n"
	for _, dir := range slices.Backward(n.side.path) {
		script += "ln -sf " + dir + "/* bin\n"
	}
	// integration/ has its data beside it and expects the plugins in ../bin.
	script += "ln -s " + home + " tests\n" +
		// The tests build programs of the module.
		"echo 'go 1.26.8\nuse " + module + "' >go.work\n" +
		// The tests use files with fixed names in /tmp.
		"mkdir upper work; mount -t overlay -o lowerdir=/tmp,upperdir=upper,workdir=work overlay /tmp\n" +
		"ip link add uplink type veth peer outside; ip address add 192.0.2.2/24 dev uplink\n" +
		"ip link set uplink up; ip link set outside up"
	if _, err := n.sh(script); err != nil {
		return nil, err
	}
	report := root + "/report.json"
	args := []string{"-ginkgo.json-report=" + report, "-ginkgo.focus=" + it.focus}
	tests := exec.Command(program, args...)
	tests.Dir = root + "/tests"
	tests.Env = append(os.Environ(), "PWD="+tests.Dir, "GOWORK="+root+"/go.work",
		"PATH="+root+"/bin:"+os.Getenv("PATH"))
	said, _ := tests.CombinedOutput()
	return it.read(report, said)
}

// The specs in a report that run plugins.
func (it suite) read(report string, said []byte) ([]spec, error) {
	var reports []struct{ SpecReports []spec }
	if err := json.Unmarshal([]byte(content(report)), &reports); err != nil {
		return nil, fmt.Errorf("%s made no report: %w\n%s", it.pkg, err, said)
	}
	var specs []spec
	for _, found := range reports[0].SpecReports {
		name := strings.Join(append(found.Containers, found.Name), " ")
		switch {
		case found.Kind != "It" && found.State != "passed":
			return nil, fmt.Errorf("%s: %s: %s\n%s", it.pkg, found.Kind, found.Failure.Message, said)
		case found.Kind == "It" && strings.Contains(name, it.focus):
			specs = append(specs, found)
		}
	}
	if len(specs) == 0 {
		return nil, fmt.Errorf("%s has no spec with %q in its name", it.pkg, it.focus)
	}
	return specs, nil
}
