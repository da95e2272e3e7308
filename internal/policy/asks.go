package policy

import (
	"bytes"
	"encoding/json"

	"github.com/cedar-policy/cedar-go"
)

// readsWhereItAsks returns the policy with each "context has scopes" in it as a comparison of the scopes with
// themselves: true if they are known, and if they are not it fails, as whatever reads them does. Else a forbid that
// asks first would be answered no, and forbid nothing (threat M02).
func readsWhereItAsks(p *cedar.Policy) (*cedar.Policy, error) {
	text, err := p.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var tree any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // a float64 has not all of Cedar's numbers
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	if text, err = json.Marshal(readScopes(tree)); err != nil {
		return nil, err
	}
	var out cedar.Policy
	return &out, out.UnmarshalJSON(text)
}

// readScopes is readsWhereItAsks for a node in Cedar's JSON form, which it may change.
func readScopes(node any) any {
	switch node := node.(type) {
	case []any:
		for i := range node {
			node[i] = readScopes(node[i])
		}
	case map[string]any:
		has, _ := node["has"].(map[string]any)
		if of, _ := has["left"].(map[string]any); of["Var"] == "context" && has["attr"] == "scopes" {
			read := map[string]any{".": has}
			return map[string]any{"==": map[string]any{"left": read, "right": read}}
		}
		for name := range node {
			node[name] = readScopes(node[name])
		}
	}
	return node
}
