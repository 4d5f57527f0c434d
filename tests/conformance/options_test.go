package conformance

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
)

// Options that runtimes use and plugins do not get, each for a network with the same plugins.
var options = map[string]string{
	"none":                   ``,
	"disableCheck":           `"disableCheck": true,`,
	"disableCheck-text":      `"disableCheck": "True",`,
	"disableCheck-wrong":     `"disableCheck": "maybe",`,
	"disableCheck-number":    `"disableCheck": 1,`,
	"disableGC":              `"disableGC": true,`,
	"disableGC-text":         `"disableGC": "true",`,
	"disableGC-list":         `"disableGC": [],`,
	"cniVersions":            `"cniVersions": ["1.0.0", "0.4.0"],`,
	"cniVersions-later":      `"cniVersions": ["1.1.0", "0.3.1"],`,
	"cniVersions-earlier":    `"cniVersions": ["0.1.0"],`,
	"cniVersions-future":     `"cniVersions": ["1.0.0", "1.2.0", "9.0.0"],`,
	"cniVersions-empty":      `"cniVersions": [],`,
	"cniVersions-wrong":      `"cniVersions": ["one"],`,
	"cniVersions-text":       `"cniVersions": "1.0.0",`,
	"cniVersions-number":     `"cniVersions": [1],`,
	"onlyInlined":            `"loadOnlyInlinedPlugins": true,`,
	"onlyInlined-text":       `"loadOnlyInlinedPlugins": "TRUE",`,
	"onlyInlined-false":      `"loadOnlyInlinedPlugins": false,`,
	"onlyInlined-wrong":      `"loadOnlyInlinedPlugins": "yes",`,
	"onlyInlined-and-others": `"loadOnlyInlinedPlugins": true, "disableGC": true, "disableCheck": true,`,
}

// Where the network's plugins are configured: in its file, in the directory of its name, or in both.
const (
	inlined = `{"type": "bridge", "bridge": "options0", "isGateway": true, "ipMasq": true,
		"ipam": {"type": "host-local", "subnet": "10.91.0.0/24"}}`
	beside = `{"type": "portmap", "capabilities": {"portMappings": true}}`
)

var places = map[string]map[string]string{
	"file":      {"10.conflist": `%s "plugins": [` + inlined + `, ` + beside + `]`},
	"both":      {"10.conflist": `%s "plugins": [` + inlined + `]`, "options/20.conf": beside},
	"directory": {"10.conflist": `%s "k": 0`, "options/10.conf": inlined, "options/20.conf": beside},
	"nowhere":   {"10.conflist": `%s "plugins": []`},
	"missing":   {"10.conflist": `%s "k": 0`},
	// Its name is not that of a plugin's file.
	"stray": {"10.conflist": `%s "plugins": [` + inlined + `]`, "options/20.json": `{"type": "none"}`},
}

// conflist and libcni behave the same with the same files, command for command.
func TestOptions(t *testing.T) {
	onSides(t, func(t *testing.T, s side) {
		for option, keys := range options {
			files := places["file"]
			if strings.HasPrefix(option, "onlyInlined") {
				files = places["both"]
			}
			for _, version := range []string{"0.4.0", "1.1.0"} {
				s.option(t, option+"/"+version, version, keys, files)
			}
		}
		for place, files := range places {
			s.option(t, "plugins-in-"+place, "1.1.0", options["none"], files)
			s.option(t, "plugins-in-"+place+"/onlyInlined", "1.1.0", options["onlyInlined"], files)
		}
	})
}

func (s side) option(t *testing.T, name, version, keys string, files map[string]string) {
	written := map[string]string{}
	for file, text := range files {
		if filepath.Ext(file) == ".conflist" {
			text = fmt.Sprintf(`{"cniVersion": %q, "name": "options", %s}`, version, fmt.Sprintf(text, keys))
		}
		written[file] = text
	}
	s.run(t, name, []string{"bridge", "host-local", "portmap", "conflist"}, nil, func(n *node) error {
		theirs, err := n.transcript(written, func() commands { return n.libcni("options") })
		if err != nil {
			return err
		}
		var ours string
		err = onNode(s, func(n *node) (err error) {
			ours, err = n.transcript(written, conflist{n, "options"}.commands)
			return err
		})
		if err != nil {
			return err
		}
		if len(written) > 1 {
			// libcni keeps the list without the plugins of the directory; conflist keeps it with them, so that
			// it does not need the files later.
			theirs = kept.ReplaceAllString(theirs, "config")
			ours = kept.ReplaceAllString(ours, "config")
		}
		if err := same(theirs, ours); err != nil {
			return fmt.Errorf("libcni (-) and conflist (+): %w", err)
		}
		return nil
	})
}

var kept = regexp.MustCompile(`\\"config\\":\\"[^"]*"`)

// The commands that a runtime can run for a network, by name.
type commands map[string]func(*libcni.RuntimeConf) error

// The commands of libcni; an error if it cannot load the network.
func (n *node) libcni(name string) commands {
	list, err := libcni.LoadNetworkConf(netDir, name)
	if err != nil {
		return nil
	}
	w := n.networkOf(list)
	return commands{
		"version": func(*libcni.RuntimeConf) error {
			_, err := w.ValidateNetworkList(context.Background(), list)
			return err
		},
		"status": func(*libcni.RuntimeConf) error {
			return w.GetStatusNetworkList(context.Background(), list)
		},
		"add": func(pod *libcni.RuntimeConf) error {
			_, err := w.AddNetworkList(context.Background(), list, pod)
			return err
		},
		"check": w.check,
		"gc":    func(*libcni.RuntimeConf) error { return w.gc() },
		"del":   w.del,
	}
}

// The outcome of each command, and the state after those that change it. In between, the pod loses its
// address.
func (n *node) transcript(files map[string]string, load func() commands) (string, error) {
	if err := n.configure(files); err != nil {
		return "", err
	}
	netns, err := n.addPod("pod")
	if err != nil {
		return "", err
	}
	pod := attachment("pod", netns)
	can := load()
	var told strings.Builder
	for i, name := range []string{"version", "status", "add", "check", "damage", "check", "gc", "del"} {
		outcome := "fails"
		if name == "damage" {
			_, err = n.sh("ip -n pod address flush scope global")
			if err != nil {
				return "", err
			}
		} else if do := can[name]; do != nil && do(pod) == nil {
			outcome = "succeeds"
		}
		fmt.Fprintf(&told, "%d. %s %s\n", i, name, outcome)
		if name != "add" && name != "gc" && name != "del" {
			continue
		}
		state, err := n.state(netns)
		if err != nil {
			return "", err
		}
		for _, line := range lines(state) {
			fmt.Fprintf(&told, "after %s: %s\n", name, line)
		}
	}
	return told.String(), nil
}
