package conformance

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"sort"
)

const examplesDir = "../../conflist/examples"

// The networks of common runtimes.
func examples() []string {
	files, err := filepath.Glob(filepath.Join(examplesDir, "*.conflist"))
	if err != nil || len(files) == 0 {
		panic(fmt.Sprintf("%s has no networks: %v", examplesDir, err))
	}
	return files
}

// The plugins of a network, including IPAM plugins.
func plugins(conflist []byte) []string {
	var list struct {
		Plugins []struct {
			Type string
			IPAM struct{ Type string }
		}
	}
	if err := json.Unmarshal(conflist, &list); err != nil {
		panic(err)
	}
	var kinds []string
	for _, it := range list.Plugins {
		kinds = append(kinds, it.Type)
		if it.IPAM.Type != "" {
			kinds = append(kinds, it.IPAM.Type)
		}
	}
	return kinds
}

// Every plugin of the examples, once.
func everyPlugin() []string {
	seen := map[string]bool{}
	var kinds []string
	for _, file := range examples() {
		for _, kind := range plugins([]byte(content(file))) {
			if !seen[kind] {
				seen[kind] = true
				kinds = append(kinds, kind)
			}
		}
	}
	sort.Strings(kinds)
	return kinds
}

// A network with its version of the specification replaced.
func ofVersion(conflist []byte, version string) []byte {
	var keys map[string]any
	if err := json.Unmarshal(conflist, &keys); err != nil {
		panic(err)
	}
	delete(keys, "cniVersions")
	keys["cniVersion"] = version
	text, err := json.Marshal(keys)
	if err != nil {
		panic(err)
	}
	return text
}
