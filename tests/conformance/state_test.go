package conformance

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

// The state of the kernel and the files, as `ip`, `iptables-save` and `nft` print it: one fact a line,
// without values that differ between runs.
func (n *node) state(pods ...string) (string, error) {
	var facts []string
	for _, netns := range append([]string{""}, pods...) {
		found, err := interfaces(netns)
		if err != nil {
			return "", err
		}
		facts = append(facts, found...)
	}
	rules, err := firewall()
	if err != nil {
		return "", err
	}
	files, err := files("/run", "/var/lib")
	if err != nil {
		return "", err
	}
	facts = append(append(facts, rules...), files...)
	return random.Replace(strings.Join(facts, "\n")), nil
}

// A remover replaces random values by placeholders.
type remover []struct {
	pattern *regexp.Regexp
	word    string
}

var random = remover{
	{regexp.MustCompile(`\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b`), "MAC"},
	{regexp.MustCompile(`\bveth[0-9a-f]{8}\b`), "VETH"},
	// The device and the inode of a directory.
	{regexp.MustCompile(`/\d+-\d+/`), "/INODE/"},
}

func (r remover) Replace(text string) string {
	for _, it := range r {
		text = it.pattern.ReplaceAllString(text, it.word)
	}
	return text
}

// Runs `ip -j` in a pod or on the node.
func ip[T any](netns string, words ...string) ([]T, error) {
	args := []string{"-j"}
	if netns != "" {
		args = append(args, "-n", filepath.Base(netns))
	}
	text, err := output(exec.Command("ip", append(args, words...)...))
	if err != nil {
		return nil, err
	}
	var found []T
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		return nil, fmt.Errorf("ip %s: %w: %s", strings.Join(words, " "), err, text)
	}
	return found, nil
}

type link struct {
	Name      string   `json:"ifname"`
	Master    string   `json:"master"`
	MTU       int      `json:"mtu"`
	Flags     []string `json:"flags"`
	Addresses []struct {
		Local  string `json:"local"`
		Prefix int    `json:"prefixlen"`
		Scope  string `json:"scope"`
	} `json:"addr_info"`
}

type route struct {
	Type    string `json:"type"`
	Dst     string `json:"dst"`
	Gateway string `json:"gateway"`
	Dev     string `json:"dev"`
	Scope   string `json:"scope"`
	Source  string `json:"prefsrc"`
}

// Links, addresses, routes and queues, without those that the kernel adds by itself and later.
func interfaces(netns string) ([]string, error) {
	where := "node"
	if netns != "" {
		where = filepath.Base(netns)
	}
	links, err := ip[link](netns, "address", "show")
	if err != nil {
		return nil, err
	}
	var facts []string
	for _, it := range links {
		up := strings.Contains(strings.Join(it.Flags, " ")+" ", "UP ")
		facts = append(facts, fmt.Sprintf("%s: link %s up %t mtu %d of %q", where, it.Name, up, it.MTU, it.Master))
		for _, address := range it.Addresses {
			if address.Scope != "link" {
				facts = append(facts, fmt.Sprintf("%s: %s has %s/%d", where, it.Name, address.Local, address.Prefix))
			}
		}
	}
	for _, family := range []string{"-4", "-6"} {
		routes, err := ip[route](netns, family, "route", "show", "table", "main")
		if err != nil {
			return nil, err
		}
		for _, it := range routes {
			if it.Dst != "fe80::/64" {
				facts = append(facts, fmt.Sprintf("%s: route %s %s via %s dev %s scope %s src %s",
					where, it.Type, it.Dst, it.Gateway, it.Dev, it.Scope, it.Source))
			}
		}
	}
	queues, err := output(exec.Command("tc", netnsArgs(netns, "qdisc", "show")...))
	if err != nil {
		return nil, err
	}
	for _, queue := range lines(queues) {
		if !strings.Contains(queue, " noqueue ") {
			facts = append(facts, where+": "+queue)
		}
	}
	sort.Strings(facts)
	return facts, nil
}

func netnsArgs(netns string, words ...string) []string {
	if netns == "" {
		return words
	}
	return append([]string{"-n", filepath.Base(netns)}, words...)
}

var policyCounters = regexp.MustCompile(` \[\d+:\d+\]$`)

// The node's packet filter rules, as each tool prints them.
func firewall() ([]string, error) {
	var facts []string
	for _, command := range []string{"iptables-save", "ip6tables-save", "nft -s list ruleset"} {
		words := strings.Fields(command)
		text, err := output(exec.Command(words[0], words[1:]...))
		if err != nil {
			return nil, err
		}
		for _, line := range lines(text) {
			if !strings.HasPrefix(line, "#") {
				facts = append(facts, words[0]+": "+policyCounters.ReplaceAllString(line, ""))
			}
		}
	}
	return facts, nil
}

// Files with their content. Locks and the address that comes next are left out.
func files(roots ...string) ([]string, error) {
	var facts []string
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			name := entry.Name()
			switch {
			case err != nil:
				return err
			case path == "/run/netns":
				return fs.SkipDir
			case entry.IsDir() || strings.HasSuffix(name, "lock") || strings.HasPrefix(name, "last_reserved_ip"):
				return nil
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			text := content(path)
			if info.Mode()&fs.ModeSymlink != 0 {
				text, _ = os.Readlink(path)
			}
			facts = append(facts, fmt.Sprintf("file %s %v: %q", path, info.Mode(), text))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return facts, nil
}

func lines(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}

// An error if two states differ, with the lines that are in only one of them.
func same(was, is string) error {
	only := func(sign, a, b string) (different []string) {
		known := map[string]bool{}
		for _, line := range lines(b) {
			known[line] = true
		}
		for _, line := range lines(a) {
			if !known[line] {
				different = append(different, sign+line)
			}
		}
		return different
	}
	if was == is {
		return nil
	}
	different := append(only("- ", was, is), only("+ ", is, was)...)
	return fmt.Errorf("the state differs:\n%s", strings.Join(different, "\n"))
}
