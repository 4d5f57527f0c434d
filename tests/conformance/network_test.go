package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// A network as a runtime has it: a configuration, and libcni with its own directories.
type network struct {
	*libcni.CNIConfig
	node *node
	list *libcni.NetworkConfigList
}

func (n *node) network(conflist []byte) (*network, error) {
	list, err := libcni.NetworkConfFromBytes(conflist)
	if err != nil {
		return nil, err
	}
	return n.networkOf(list), nil
}

func (n *node) networkOf(list *libcni.NetworkConfigList) *network {
	return &network{libcni.NewCNIConfig(n.side.path, nil), n, list}
}

// What a runtime passes to plugins that map ports. Each pod has a hostPort of its own.
var onePort, otherPort = portMapping(8080), portMapping(9090)

func portMapping(hostPort float64) map[string]any {
	mapping := map[string]any{"hostPort": hostPort, "containerPort": 80.0, "protocol": "tcp"}
	return map[string]any{"portMappings": []any{mapping}}
}

// A pod's attachment to the network.
func attachment(id, netns string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID:    id,
		NetNS:          netns,
		IfName:         "eth0",
		Args:           [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", id}},
		CapabilityArgs: onePort,
	}
}

func (w *network) hasCheck() bool { return w.list.CNIVersion >= "0.4.0" }

func (w *network) hasPlugin(kind string) bool {
	for _, it := range w.list.Plugins {
		if it.Network.Type == kind {
			return true
		}
	}
	return false
}

// Whether the plugins exist, support the network's version, and have the capabilities that the
// configuration declares.
func (w *network) isValid() error {
	capabilities, err := w.ValidateNetworkList(context.Background(), w.list)
	if err != nil {
		return err
	}
	if w.hasPlugin("portmap") != slices.Contains(capabilities, "portMappings") {
		return fmt.Errorf("capabilities %v", capabilities)
	}
	return nil
}

func (w *network) check(pod *libcni.RuntimeConf) error {
	return w.CheckNetworkList(context.Background(), w.list, pod)
}

func (w *network) del(pod *libcni.RuntimeConf) error {
	return w.DelNetworkList(context.Background(), w.list, pod)
}

func (w *network) gc(valid ...*libcni.RuntimeConf) error {
	args := libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}
	for _, pod := range valid {
		args.ValidAttachments = append(args.ValidAttachments,
			types.GCAttachment{ContainerID: pod.ContainerID, IfName: pod.IfName})
	}
	return w.GCNetworkList(context.Background(), w.list, &args)
}

// The path of the file in which libcni keeps an attachment.
func (w *network) cacheFile(pod *libcni.RuntimeConf) string {
	return "/var/lib/cni/results/" + strings.Join([]string{w.list.Name, pod.ContainerID, pod.IfName}, "-")
}

// Runs ADD and CHECK of a pod; the result must agree with the kernel and the cache. Returns the pod's
// addresses, each as "10.0.0.2/24".
func (w *network) attach(pod *libcni.RuntimeConf) ([]string, error) {
	result, err := w.AddNetworkList(context.Background(), w.list, pod)
	if err != nil {
		return nil, fmt.Errorf("ADD: %w", err)
	}
	if result.Version() != w.list.CNIVersion {
		return nil, fmt.Errorf("ADD: a result of version %q, not %q", result.Version(), w.list.CNIVersion)
	}
	addresses, err := addressesOf(result)
	if err != nil {
		return nil, err
	}
	if err := w.isAttached(pod, addresses); err != nil {
		return nil, err
	}
	if err := w.isKept(pod, result); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	switch err := w.check(pod); {
	case w.hasCheck() && err != nil:
		return nil, fmt.Errorf("CHECK after ADD: %w", err)
	case !w.hasCheck() && !errors.Is(err, libcni.ErrorCheckNotSupp):
		return nil, fmt.Errorf("CHECK in version %s: %v", w.list.CNIVersion, err)
	}
	return addresses, nil
}

func addressesOf(result types.Result) ([]string, error) {
	text, err := json.Marshal(result)
	if err != nil {
		return nil, err
	}
	var told struct {
		IPs      []struct{ Address string }
		IP4, IP6 *struct{ IP string }
	}
	if err := json.Unmarshal(text, &told); err != nil {
		return nil, err
	}
	var addresses []string
	for _, it := range told.IPs {
		addresses = append(addresses, it.Address)
	}
	for _, it := range []*struct{ IP string }{told.IP4, told.IP6} {
		if it != nil {
			addresses = append(addresses, it.IP)
		}
	}
	if len(addresses) == 0 {
		return nil, fmt.Errorf("no address in the result %s", text)
	}
	return addresses, nil
}

// Whether the kernel has a pod's addresses, and the rule from its hostPort to the first address.
func (w *network) isAttached(pod *libcni.RuntimeConf, addresses []string) error {
	links, err := ip[link](pod.NetNS, "address", "show", "dev", pod.IfName)
	if err != nil {
		return err
	}
	var found []string
	for _, it := range links[0].Addresses {
		if it.Scope != "link" {
			found = append(found, fmt.Sprintf("%s/%d", it.Local, it.Prefix))
		}
	}
	slices.Sort(found)
	told := slices.Sorted(slices.Values(addresses))
	if !slices.Equal(found, told) {
		return fmt.Errorf("the result has %v, %s has %v", told, pod.IfName, found)
	}
	if !w.hasPlugin("portmap") {
		return nil
	}
	rules, err := w.node.sh("iptables -t nat -S")
	if err != nil {
		return err
	}
	mapping := pod.CapabilityArgs["portMappings"].([]any)[0].(map[string]any)
	address, _, _ := strings.Cut(addresses[0], "/")
	rule := fmt.Sprintf("--dport %v -j DNAT --to-destination %s:80", mapping["hostPort"], address)
	if !strings.Contains(rules, rule) {
		return fmt.Errorf("no rule %q in\n%s", rule, rules)
	}
	return nil
}

// Whether libcni finds what it has kept of an attachment.
func (w *network) isKept(pod *libcni.RuntimeConf, result types.Result) error {
	kept, err := w.GetNetworkListCachedResult(w.list, pod)
	if err != nil {
		return err
	}
	was, err := json.Marshal(result)
	if err != nil {
		return err
	}
	is, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	if !bytes.Equal(was, is) {
		return fmt.Errorf("result %s, not %s", is, was)
	}
	config, rt, err := w.GetNetworkListCachedConfig(w.list, pod)
	if err != nil {
		return err
	}
	if !bytes.Equal(config, w.list.Bytes) || !reflect.DeepEqual(rt, pod) {
		return fmt.Errorf("configuration %s, %+v", config, rt)
	}
	attachments, err := w.GetCachedAttachments(pod.ContainerID)
	if err != nil {
		return err
	}
	if len(attachments) != 1 || attachments[0].Network != w.list.Name || attachments[0].NetNS != pod.NetNS {
		return fmt.Errorf("attachments %+v", attachments)
	}
	return nil
}
