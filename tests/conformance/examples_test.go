package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// A chapter is a part of the life of pods on a network.
type chapter struct {
	name string
	// The first version of the specification in which there is something to tell.
	since string
	// The plugins of the reference with which it ends badly, and why.
	fails map[string]string
	tell  func(*network) error
}

var chapters = []chapter{
	{"add-check-del", "0.1.0", nil, (*network).attachesAndDetaches},
	{"damage", "0.4.0", nil, (*network).noticesDamage},
	{"gc", "0.1.0", nil, (*network).collectsTheStale},
	{"change-of-hands", "0.1.0", nil, (*network).changesHands},
	{"vanished", "0.1.0", map[string]string{
		"bridge": "bridge finds masquerading by the addresses of the interface, which vanish with it",
	}, (*network).detachesTheVanished},
	{"lost-cache", "1.1.0", map[string]string{
		"host-local": "host-local keeps the address: it has no GC",
		"firewall":   "firewall keeps the rules: it has no GC",
	}, (*network).collectsTheForgotten},
}

// Every example, in every version of the specification.
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
	s.run(t, "versions", needs, "", on((*network).tellsVersions))
	if kind := s.tooNew(needs, version); kind != "" {
		s.run(t, "refusal", needs, "", on(func(w *network) error { return w.isRefused(kind) }))
		return
	}
	for _, it := range chapters {
		if version >= it.since {
			s.run(t, it.name, needs, s.blames(it.fails, needs), on(it.tell))
		}
	}
}

// Why a case with these plugins is to fail: one that is known to is taken from the reference.
func (s side) blames(fails map[string]string, kinds []string) string {
	for _, kind := range kinds {
		if where(s.path, kind) == filepath.Join(referenceDir(), kind) && fails[kind] != "" {
			return fails[kind]
		}
	}
	return ""
}

// The plugins that came with a later version of the specification than the first.
var sinces = map[string]string{"firewall": "0.4.0"}

// The plugin that is newer than the network's version, and says so.
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

// VERSION, and STATUS as far as the network's version has it.
func (w *network) tellsVersions() error {
	for _, kind := range plugins(w.list.Bytes) {
		info, err := w.GetVersionInfo(context.Background(), kind)
		if err != nil {
			return fmt.Errorf("VERSION of %s: %w", kind, err)
		}
		for _, version := range version.All.SupportedVersions() {
			if version >= sinces[kind] && !slices.Contains(info.SupportedVersions(), version) {
				return fmt.Errorf("VERSION of %s: %s is not in %v", kind, version, info.SupportedVersions())
			}
		}
	}
	return w.GetStatusNetworkList(context.Background(), w.list)
}

// A plugin that is newer than the network's version refuses it by name and code.
func (w *network) isRefused(kind string) error {
	_, err := w.ValidateNetworkList(context.Background(), w.list)
	if err == nil || !strings.Contains(err.Error(), kind) {
		return fmt.Errorf("validate: %v", err)
	}
	netns, err := w.node.addPod("pod")
	if err != nil {
		return err
	}
	_, err = w.AddNetworkList(context.Background(), w.list, attachment("pod", netns))
	var answer *types.Error
	if !errors.As(err, &answer) || answer.Code != types.ErrIncompatibleCNIVersion {
		return fmt.Errorf("ADD: %v", err)
	}
	return nil
}

// ADD, CHECK and DEL as in everyday life: after the DEL nothing of the pod is left, and the next
// one leaves the node as it was.
func (w *network) attachesAndDetaches() error {
	if err := w.isValid(); err != nil {
		return fmt.Errorf("validate: %w", err)
	}
	netns, err := w.node.addPod("pod")
	if err != nil {
		return err
	}
	empty := ""
	for _, id := range []string{"first-pod", "second-pod"} {
		pod := attachment(id, netns)
		addresses, err := w.attach(pod)
		if err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
		if err := w.del(pod); err != nil {
			return fmt.Errorf("DEL of %s: %w", id, err)
		}
		left, err := w.node.state(netns)
		if err != nil {
			return err
		}
		if err := mentionsNone(left, append(addresses, id, "VETH")); err != nil {
			return fmt.Errorf("DEL of %s: %w", id, err)
		}
		if err := same(empty, left); empty != "" && err != nil {
			return fmt.Errorf("DEL of %s: %w", id, err)
		}
		if err := w.del(pod); err != nil {
			return fmt.Errorf("the same DEL once more: %w", err)
		}
		empty = left
	}
	return nil
}

// An error if a word of a pod is in a state.
func mentionsNone(state string, words []string) error {
	for _, word := range words {
		word, _, _ = strings.Cut(word, "/")
		for _, line := range lines(state) {
			found := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" /\",{}:", r) })
			if slices.Contains(found, word) || slices.Contains(strings.Fields(line), word) {
				return fmt.Errorf("%s is left: %s", word, line)
			}
		}
	}
	return nil
}

// CHECK notices that a pod has lost its addresses.
func (w *network) noticesDamage() error {
	netns, err := w.node.addPod("pod")
	if err != nil {
		return err
	}
	pod := attachment("pod", netns)
	if _, err := w.attach(pod); err != nil {
		return err
	}
	if _, err := w.node.sh("ip -n pod address flush dev eth0 scope global"); err != nil {
		return err
	}
	if w.check(pod) == nil {
		return errors.New("CHECK does not miss the addresses")
	}
	return w.del(pod)
}

// GC with one of two pods valid removes the other one, and leaves the valid one as it is.
func (w *network) collectsTheStale() error {
	var netns [2]string
	for i := range netns {
		var err error
		if netns[i], err = w.node.addPod(fmt.Sprintf("pod-%d", i)); err != nil {
			return err
		}
	}
	valid, stale := attachment("valid-pod", netns[0]), attachment("stale-pod", netns[1])
	valid.CapabilityArgs = otherPort
	if _, err := w.attach(valid); err != nil {
		return fmt.Errorf("valid pod: %w", err)
	}
	alone, err := w.node.state(netns[:]...)
	if err != nil {
		return err
	}
	if _, err := w.attach(stale); err != nil {
		return fmt.Errorf("stale pod: %w", err)
	}
	if err := w.gc(valid); err != nil {
		return fmt.Errorf("GC: %w", err)
	}
	left, err := w.node.state(netns[:]...)
	if err != nil {
		return err
	}
	if err := same(alone, left); err != nil {
		return fmt.Errorf("GC: %w", err)
	}
	if err := w.check(valid); w.hasCheck() && err != nil {
		return fmt.Errorf("CHECK of the valid pod: %w", err)
	}
	return w.del(valid)
}

// DEL of a pod whose namespace has vanished removes what is left of it on the node.
func (w *network) detachesTheVanished() error {
	return w.vanishes(func(pod *libcni.RuntimeConf) error { return w.del(pod) })
}

// The same without even a kept result: only the plugins themselves can find what is left.
func (w *network) collectsTheForgotten() error {
	return w.vanishes(func(pod *libcni.RuntimeConf) error {
		if err := os.Remove(w.cacheFile(pod)); err != nil {
			return err
		}
		return w.gc()
	})
}

func (w *network) vanishes(clean func(*libcni.RuntimeConf) error) error {
	netns, err := w.node.addPod("pod")
	if err != nil {
		return err
	}
	// What a network makes for all its pods is there before.
	first, pod := attachment("first-pod", netns), attachment("vanished-pod", netns)
	if _, err := w.attach(first); err != nil {
		return err
	}
	if err := w.del(first); err != nil {
		return err
	}
	empty, err := w.node.state()
	if err != nil {
		return err
	}
	if _, err := w.attach(pod); err != nil {
		return err
	}
	if err := w.node.removePod("pod"); err != nil {
		return err
	}
	if err := clean(pod); err != nil {
		return err
	}
	left, err := w.node.state()
	if err != nil {
		return err
	}
	return same(empty, left)
}
