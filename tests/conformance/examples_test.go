package conformance

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"
)

// A chapter is a part of the life of the pods on a network.
type chapter struct {
	name string
	// The first version of the specification to which it applies.
	since string
	// The plugins of the reference that fail it, and how.
	fails map[string]known
	tell  func(*network) error
}

var chapters = []chapter{
	{"add-check-del", "0.1.0", nil, (*network).attachesAndDetaches},
	{"damage", "0.4.0", nil, (*network).noticesDamage},
	{"status", "1.1.0", nil, (*network).missesIPAM},
	{"gc", "0.1.0", nil, (*network).collectsTheStale},
	{"change-of-hands", "0.1.0", nil, (*network).changesHands},
	{"vanished", "0.1.0", map[string]known{
		"bridge": {
			"bridge finds masquerading by the addresses of the interface, which vanish with it",
			" -j MASQUERADE\n",
		},
	}, (*network).detachesTheVanished},
	{"lost-cache", "1.1.0", map[string]known{
		"host-local": {"host-local keeps the address: it has no GC", `: "vanished-pod\r\neth0"`},
		"firewall":   {"firewall keeps the rules: it has no GC", "+ iptables-save: -A CNI-FORWARD "},
	}, (*network).collectsTheForgotten},
}

// Each example in each version of the specification.
func TestExamples(t *testing.T) {
	onSides(t, func(t *testing.T, s side) {
		for _, file := range examples() {
			name := strings.TrimSuffix(filepath.Base(file), ".conflist")
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				for _, version := range version.All.SupportedVersions() {
					conflist := ofVersion([]byte(content(file)), version)
					t.Run(version, func(t *testing.T) { s.example(t, conflist, version) })
				}
			})
		}
	})
}

func (s side) example(t *testing.T, conflist []byte, version string) {
	needs := append(plugins(conflist), "conflist")
	on := func(tell func(*network) error) func(*node) error {
		return func(n *node) error {
			w, err := n.network(conflist)
			if err != nil {
				return err
			}
			return tell(w)
		}
	}
	s.run(t, "versions", needs, nil, on((*network).tellsVersions))
	if kind := s.tooNew(needs, version); kind != "" {
		s.run(t, "refusal", needs, nil, on(func(w *network) error { return w.isRefused(kind) }))
		return
	}
	for _, it := range chapters {
		if version >= it.since {
			s.run(t, it.name, needs, s.blames(it.fails, needs), on(it.tell))
		}
	}
}

// The known failure of a case with these plugins, if one of them is taken from the reference and has
// one.
func (s side) blames(fails map[string]known, kinds []string) *known {
	for _, kind := range kinds {
		why, fails := fails[kind]
		if fails && where(s.path, kind) == filepath.Join(referenceDir(), kind) {
			return &why
		}
	}
	return nil
}

// The plugins that a later version of the specification than the first one requires.
var sinces = map[string]string{"firewall": "0.4.0"}

// The plugin that is newer than the network's version and refuses it.
func (s side) tooNew(kinds []string, version string) string {
	for _, kind := range kinds {
		if version >= sinces[kind] {
			continue
		}
		info, err := libcni.NewCNIConfig(s.path, nil).GetVersionInfo(context.Background(), kind)
		if err == nil && !slices.Contains(info.SupportedVersions(), version) {
			return kind
		}
	}
	return ""
}
