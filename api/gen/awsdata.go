package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// dataDir is where AWS_DATA_PATH points: botocore, and with it the aws command, reads a service from
// <service>/<API version>/.
const dataDir = "models/aws-data"

// published returns the files by which other languages call our own operations, from the model of them in dir: for
// botocore the model itself with its paginators and endpoint rules, for generators of clients a Smithy model.
func published(dir string) (map[string][]byte, error) {
	text, err := os.ReadFile(filepath.Join(dir, "tabard.json"))
	if err != nil {
		return nil, err
	}
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, err
	}
	if d.Metadata.APIVersion == "" || d.Metadata.EndpointPrefix == "" {
		return nil, fmt.Errorf("tabard.json: the metadata lacks apiVersion or endpointPrefix")
	}
	service := filepath.Join(dataDir, d.Metadata.EndpointPrefix, d.Metadata.APIVersion)
	files := map[string][]byte{filepath.Join(service, "service-2.json"): text}
	smithy, err := d.smithy()
	if err != nil {
		return nil, fmt.Errorf("tabard.json: %w", err)
	}
	for name, doc := range map[string]any{
		filepath.Join(service, "paginators-1.json"):        map[string]any{"pagination": d.paginators()},
		filepath.Join(service, "endpoint-rule-set-1.json"): d.endpointRules(),
		filepath.Join(dataDir, "tabard.smithy.json"):       smithy,
	} {
		b, err := json.MarshalIndent(doc, "", "  ")
		if err != nil {
			return nil, err
		}
		files[name] = append(b, '\n')
	}
	return files, nil
}

// document is tabard.json with what the Go types need nothing of.
type document struct {
	Metadata struct {
		APIVersion, EndpointPrefix, ServiceFullName, ServiceID, SigningName string
	}
	Operations map[string]operation
	Shapes     map[string]*described
}

// described is a shape with what only errors have.
type described struct {
	shape
	Error struct {
		HTTPStatusCode int
		SenderFault    bool
	}
}

// paginator is one entry of botocore's paginators-1.json.
type paginator struct {
	InputToken  string `json:"input_token"`
	OutputToken string `json:"output_token"`
	LimitKey    string `json:"limit_key"`
	ResultKey   string `json:"result_key"`
}

// feed is the one list without an end: its nextToken says where a later call goes on, and every call of it is recorded
// in what it lists. A paginator would read the records of its own requests for ever.
const feed = "ListAuditRecords"

// paginators finds the operations that answer in pages: those with nextToken in both shapes and one list in the answer.
func (d *document) paginators() map[string]paginator {
	found := map[string]paginator{}
	for name, op := range d.Operations {
		in, out := d.Shapes[op.Input.Shape], d.Shapes[op.Output.Shape]
		if name == feed || in == nil || out == nil || !in.has("nextToken") || !in.has("maxResults") || !out.has("nextToken") {
			continue
		}
		for _, m := range out.Members {
			if s := d.Shapes[m.Shape]; s != nil && s.Type == "list" {
				found[name] = paginator{"nextToken", "nextToken", "maxResults", m.Name}
			}
		}
	}
	return found
}

func (s *shape) has(member string) bool {
	for _, m := range s.Members {
		if m.Name == member {
			return true
		}
	}
	return false
}

// endpointRules sends a client only to the endpoint that it was given. Without rules botocore would make up a host name
// under amazonaws.com from the service's name, and send it a signed request.
func (d *document) endpointRules() map[string]any {
	return map[string]any{
		"version": "1.0",
		"parameters": map[string]any{
			"Region":   map[string]any{"builtIn": "AWS::Region", "required": false, "documentation": "The region that requests are signed for.", "type": "string"},
			"Endpoint": map[string]any{"builtIn": "SDK::Endpoint", "required": false, "documentation": "The address of the server.", "type": "string"},
		},
		"rules": []any{
			map[string]any{
				"conditions": []any{map[string]any{"fn": "isSet", "argv": []any{map[string]any{"ref": "Endpoint"}}}},
				"endpoint":   map[string]any{"url": map[string]any{"ref": "Endpoint"}, "properties": map[string]any{}, "headers": map[string]any{}},
				"type":       "endpoint",
			},
			map[string]any{
				"conditions": []any{},
				"error":      d.Metadata.ServiceFullName + " runs where you run it: name the server in AWS_ENDPOINT_URL_TABARD or as the endpoint URL",
				"type":       "error",
			},
		},
	}
}
