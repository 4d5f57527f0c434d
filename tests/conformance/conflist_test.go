package conformance

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
)

// The directory of network configurations on a node.
const netDir = "/run/net.d"

// Our program conflist, which does the work of a runtime.
type conflist struct {
	node *node
	name string
}

// Writes files below netDir.
func (n *node) configure(files map[string]string) error {
	for name, text := range files {
		file := filepath.Join(netDir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (c conflist) run(command string, args ...string) error {
	program := exec.Command(filepath.Join(ourDir(), "conflist"), append([]string{command, c.name}, args...)...)
	program.Env = append(os.Environ(), "NETCONFPATH="+netDir, "CNI_PATH="+strings.Join(c.node.side.path, ":"))
	_, err := output(program)
	return err
}

func (c conflist) add(pod *libcni.RuntimeConf) error {
	var args []string
	for _, pair := range pod.Args {
		args = append(args, pair[0]+"="+pair[1])
	}
	capabilities, err := json.Marshal(pod.CapabilityArgs)
	if err != nil {
		return err
	}
	return c.run("add", pod.NetNS, "--container-id", pod.ContainerID, "--ifname", pod.IfName,
		"--args", strings.Join(args, ";"), "--capability-args", string(capabilities))
}

func (c conflist) check(pod *libcni.RuntimeConf) error {
	return c.run("check", pod.NetNS, "--container-id", pod.ContainerID, "--ifname", pod.IfName)
}

func (c conflist) del(pod *libcni.RuntimeConf) error {
	return c.run("del", pod.NetNS, "--container-id", pod.ContainerID, "--ifname", pod.IfName)
}

// All its commands for a network; for GC no attachment is valid.
func (c conflist) commands() commands {
	return commands{
		"version": func(*libcni.RuntimeConf) error { return c.run("version") },
		"status":  func(*libcni.RuntimeConf) error { return c.run("status") },
		"add":     c.add,
		"check":   c.check,
		"gc":      func(*libcni.RuntimeConf) error { return c.run("gc", "--none-valid") },
		"del":     c.del,
	}
}

// What conflist or libcni attached, the other one finds, checks and detaches.
func (w *network) changesHands() error {
	ours := conflist{w.node, w.list.Name}
	if err := w.node.configure(map[string]string{"10.conflist": string(w.list.Bytes)}); err != nil {
		return err
	}
	netns, err := w.node.addPod("pod")
	if err != nil {
		return err
	}
	pod := attachment("handed-pod", netns)
	if err := ours.add(pod); err != nil {
		return err
	}
	result, err := w.GetNetworkListCachedResult(w.list, pod)
	if err != nil || result == nil {
		return fmt.Errorf("libcni finds the result %v: %w", result, err)
	}
	addresses, err := addressesOf(result)
	if err != nil {
		return err
	}
	if err := w.isAttached(pod, addresses); err != nil {
		return err
	}
	if err := w.isKept(pod, result); err != nil {
		return fmt.Errorf("what conflist keeps: %w", err)
	}
	if err := w.check(pod); w.hasCheck() && err != nil {
		return fmt.Errorf("libcni's CHECK of what conflist attached: %w", err)
	}
	if err := w.del(pod); err != nil {
		return fmt.Errorf("libcni's DEL of what conflist attached: %w", err)
	}
	empty, err := w.node.state(netns)
	if err != nil {
		return err
	}
	if err := mentionsNone(empty, append(addresses, pod.ContainerID, "VETH")); err != nil {
		return err
	}
	if _, err := w.attach(pod); err != nil {
		return err
	}
	if err := ours.check(pod); w.hasCheck() && err != nil {
		return fmt.Errorf("conflist's CHECK of what libcni attached: %w", err)
	}
	if err := ours.del(pod); err != nil {
		return fmt.Errorf("conflist's DEL of what libcni attached: %w", err)
	}
	left, err := w.node.state(netns)
	if err != nil {
		return err
	}
	return same(empty, left)
}
