package conformance

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// A node is a network namespace with private files: `/run` and `/var/lib` are empty, so that each
// plugin, cache and lock is where its configuration says, and no other process sees it.
type node struct {
	side side
}

// Calls do on a thread in a new node. It reads, writes and starts everything there; the kernel removes
// the node when the thread and its children have ended.
func onNode(s side, do func(*node) error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocks, so that the thread ends with this function
		defer func() {
			if panicked := recover(); panicked != nil {
				done <- fmt.Errorf("panic: %v\n%s", panicked, debug.Stack())
			}
		}()
		n := &node{s}
		err := n.isolate()
		if err == nil {
			err = do(n)
		}
		done <- err
	}()
	return <-done
}

func (n *node) isolate() error {
	if err := syscall.Unshare(syscall.CLONE_NEWNS | syscall.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare the mount and network namespaces: %w", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make all mounts private: %w", err)
	}
	for _, dir := range []string{"/run", "/var/lib"} {
		if err := syscall.Mount("node", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
		}
	}
	_, err := n.sh("ip link set lo up")
	return err
}

// Adds the network namespace of a pod; returns its path.
func (n *node) addPod(name string) (string, error) {
	_, err := n.sh("ip netns add " + name)
	return "/run/netns/" + name, err
}

// Removes the network namespace of a pod, as a crash would, and waits until it is gone.
func (n *node) removePod(name string) error {
	before, err := n.veths()
	if err != nil {
		return err
	}
	pairs, err := ip[link](name, "link", "show", "type", "veth")
	if err != nil {
		return err
	}
	if _, err := n.sh("ip netns del " + name); err != nil {
		return err
	}
	for range 1000 {
		now, err := n.veths()
		if err != nil || now <= before-len(pairs) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("the veth pair of %s outlives it", name)
}

func (n *node) veths() (int, error) {
	links, err := ip[link]("", "link", "show", "type", "veth")
	return len(links), err
}

// Runs a shell script on the node; returns its output.
func (n *node) sh(script string) (string, error) {
	return output(exec.Command("sh", "-euc", script))
}

// Runs a program to its end; returns its stdout.
func output(command *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		said := strings.TrimSpace(stderr.String() + stdout.String())
		return "", fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, said)
	}
	return stdout.String(), nil
}

// The content of a file; empty if it does not exist.
func content(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}
