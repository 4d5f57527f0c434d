package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// Runs VERSION, and STATUS if the network's version has it.
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
	if err := w.GetStatusNetworkList(context.Background(), w.list); err != nil {
		return fmt.Errorf("STATUS: %w", err)
	}
	return nil
}

// STATUS also fails without the IPAM plugin, because no ADD can succeed then.
func (w *network) missesIPAM() error {
	script := "mkdir /run/few\n"
	for _, dir := range slices.Backward(w.node.side.path) {
		script += "ln -sf " + dir + "/* /run/few\n"
	}
	if _, err := w.node.sh(script + "rm /run/few/host-local"); err != nil {
		return err
	}
	w.CNIConfig = libcni.NewCNIConfig([]string{"/run/few"}, nil)
	err := w.GetStatusNetworkList(context.Background(), w.list)
	if err == nil || !strings.Contains(err.Error(), "host-local") {
		return fmt.Errorf("STATUS without host-local: %v", err)
	}
	return nil
}

// A plugin that is newer than the network's version refuses it with the right code and its name.
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

// ADD, CHECK and DEL: after DEL nothing of the pod is left, and the second pod leaves the node as it
// was.
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

// An error if a state contains one of a pod's words.
func mentionsNone(state string, words []string) error {
	for _, word := range words {
		word, _, _ = strings.Cut(word, "/")
		between := " /\"\\,{}"
		if !strings.Contains(word, ":") {
			between += ":"
		}
		isBetween := func(r rune) bool { return strings.ContainsRune(between, r) }
		for _, line := range lines(state) {
			if slices.Contains(strings.FieldsFunc(line, isBetween), word) {
				return fmt.Errorf("%s is left: %s", word, line)
			}
		}
	}
	return nil
}

// CHECK fails if a pod has lost its addresses.
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

// GC with one of two pods valid removes the other one and does not change the valid one.
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

// The same without a kept result: only the plugins themselves can find what is left.
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
	// The first pod makes what all pods of a network share.
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
