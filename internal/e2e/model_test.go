package e2e_test

import (
	"encoding/json"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// model is what the three models say about inputs.
type model struct {
	Operations map[string]struct {
		Input struct{ Shape string }
	}
	Shapes map[string]shape
}

type shape struct {
	Type     string
	Required []string
	Members  map[string]member
	Member   member // of a list
	Enum     []string
	Union    bool
}

type member struct{ Shape, Location, LocationName string }

// inputs makes requests that satisfy the models.
type inputs struct {
	models []model
	values map[string]any // of members, by name, wherever they are
}

// newInputs reads the models. values are what members have; a member without a value gets one of its shape, where it is
// required.
func newInputs(t *testing.T, values map[string]any) *inputs {
	t.Helper()
	in := &inputs{values: map[string]any{
		"kmsConfiguration": map[string]any{"keyType": "ServiceManagedKey"}, "oauth2ProviderConfigInput": map[string]any{"googleOauth2ProviderConfig": map[string]any{"clientId": "c", "clientSecret": "s"}},
		"credentialProviderVendor": "GoogleOauth2", "sessionUri": "urn:ietf:params:oauth:request_uri:nothing", "userToken": "a.b.c", "workloadIdentityToken": "wat1.bm90", "purpose": "AUDIT",
		"resourceArn":    "arn:aws:bedrock-agentcore:us-east-1:000000000000:workload-identity-directory/default/workload-identity/nothing",
		"userIdentifier": map[string]any{"userToken": "a.b.c"}, "executionRoleArn": "arn:aws:iam::000000000000:role/x", "issuer": "https://nothing.example.com", "url": "https://nothing.example.com/back",
		"accountId": "999999999999", "roles": []string{"auditor"}, "text": `permit (principal == Tabard::Principal::"x", action, resource);`, "until": time.Now().Add(time.Hour).Unix(),
		"consentPortalIdentifier": "nothing-0123456789", "operation": "GetConnection", "subject": "s", "audiences": []string{"a"}, "resourceArns": []string{"x"},
		"jwks": nil, "user": map[string]any{"issuer": "https://nothing.example.com", "subject": "s"}, "question": map[string]any{"principalName": "nobody", "operation": "GetConnection"},
	}}
	for name, v := range values {
		in.values[name] = v
	}
	for _, file := range []string{"identity-control", "identity-data", "tabard"} {
		doc, err := os.ReadFile("../../api/models/" + file + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var m model
		if err := json.Unmarshal(doc, &m); err != nil {
			t.Fatal(err)
		}
		in.models = append(in.models, m)
	}
	return in
}

// request returns the target and the body of an operation. Members that are not required are there where values has
// them and all says so.
func (in *inputs) request(t *testing.T, op, path string, all bool) (target, body string) {
	t.Helper()
	for _, m := range in.models {
		o, ok := m.Operations[op]
		if !ok {
			continue
		}
		members, query := map[string]any{}, url.Values{}
		for name, mem := range m.Shapes[o.Input.Shape].Members {
			v, known := in.values[name]
			required := slices.Contains(m.Shapes[o.Input.Shape].Required, name)
			if !required && !(all && known) || v == nil && known {
				continue
			}
			if !known {
				v = m.value(mem.Shape, in.values)
			}
			switch mem.Location {
			case "uri":
				path = strings.Replace(path, "{"+name+"}", url.PathEscape(v.(string)), 1)
			case "querystring":
				query[name] = []string{"x"}
			default:
				members[name] = v
			}
		}
		if len(query) > 0 {
			path += "?" + query.Encode()
		}
		if len(members) == 0 && !strings.Contains(path, "/tabard/") && path != strings.TrimSuffix(path, "%2F") {
			return path, ""
		}
		return path, encode(t, members)
	}
	t.Fatalf("no model has %s", op)
	return "", ""
}

// value makes one of a shape.
func (m model) value(name string, values map[string]any) any {
	s := m.Shapes[name]
	switch s.Type {
	case "structure":
		out := map[string]any{}
		for _, r := range s.Required {
			out[r] = m.member(r, s, values)
		}
		if len(out) == 0 && s.Union {
			for r := range s.Members {
				out[r] = m.member(r, s, values)
				break
			}
		}
		return out
	case "list":
		return []any{m.value(s.Member.Shape, values)}
	case "map":
		return map[string]any{"k": "v"}
	case "boolean":
		return false
	case "timestamp":
		return time.Now().Add(time.Hour).Unix()
	case "integer", "long":
		return 1
	}
	if len(s.Enum) > 0 {
		return s.Enum[0]
	}
	return "nothing"
}

func (m model) member(name string, s shape, values map[string]any) any {
	if v, ok := values[name]; ok && v != nil {
		if _, list := v.([]string); !list || m.Shapes[s.Members[name].Shape].Type == "list" {
			return v
		}
	}
	return m.value(s.Members[name].Shape, values)
}
