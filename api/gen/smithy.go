package main

import (
	"fmt"
	"strings"
)

// namespace is that of our shapes in Smithy.
const namespace = "id.tabard"

// object is a JSON object; encoding/json writes its members in order of name.
type object = map[string]any

func id(name string) string { return namespace + "#" + name }
func to(name string) object { return object{"target": id(name)} }

// smithy returns the document as a Smithy 2.0 model in its JSON AST.
func (d *document) smithy() (object, error) {
	shapes := object{}
	var operations []object
	pages := d.paginators()
	inputs, outputs := map[string]bool{}, map[string]bool{}
	for _, name := range sorted(d.Operations) {
		op := d.Operations[name]
		operations = append(operations, to(name))
		inputs[op.Input.Shape], outputs[op.Output.Shape] = true, true
		shapes[id(name)] = smithyOperation(op, pages[name])
	}
	for _, name := range sorted(d.Shapes) {
		s, err := d.smithyShape(d.Shapes[name])
		if err != nil {
			return nil, fmt.Errorf("shape %s: %w", name, err)
		}
		traits := s["traits"].(object)
		if inputs[name] {
			traits["smithy.api#input"] = object{}
		}
		if outputs[name] {
			traits["smithy.api#output"] = object{}
		}
		if len(traits) == 0 {
			delete(s, "traits")
		}
		if _, taken := shapes[id(name)]; taken {
			return nil, fmt.Errorf("%s is both an operation and a shape", name)
		}
		shapes[id(name)] = s
	}
	shapes[id(d.Metadata.ServiceID)] = object{
		"type": "service", "version": d.Metadata.APIVersion, "operations": operations,
		"traits": object{
			"smithy.api#title":             d.Metadata.ServiceFullName,
			"aws.api#service":              object{"sdkId": d.Metadata.ServiceID, "endpointPrefix": d.Metadata.EndpointPrefix},
			"aws.auth#sigv4":               object{"name": d.Metadata.SigningName},
			"aws.protocols#restJson1":      object{},
			"smithy.rules#endpointRuleSet": d.endpointRules(),
		},
	}
	return object{"smithy": "2.0", "shapes": shapes}, nil
}

func smithyOperation(op operation, pages paginator) object {
	traits := object{"smithy.api#http": object{"method": op.HTTP.Method, "uri": op.HTTP.RequestURI, "code": op.HTTP.ResponseCode}}
	if pages != (paginator{}) {
		traits["smithy.api#paginated"] = object{
			"inputToken": pages.InputToken, "outputToken": pages.OutputToken, "pageSize": pages.LimitKey, "items": pages.ResultKey,
		}
	}
	errors := []object{}
	for _, e := range op.Errors {
		errors = append(errors, to(e.Shape))
	}
	return object{"type": "operation", "input": to(op.Input.Shape), "output": to(op.Output.Shape), "errors": errors, "traits": traits}
}

// smithyShape translates one shape. Its traits are always there, be it empty.
func (d *document) smithyShape(s *described) (object, error) {
	traits := object{}
	out := object{"type": s.Type, "traits": traits}
	switch s.Type {
	case "structure":
		members, err := s.smithyMembers()
		if err != nil {
			return nil, err
		}
		out["members"] = members
		if s.Union {
			out["type"] = "union"
		}
		if s.Exception {
			traits["smithy.api#error"], traits["smithy.api#httpError"] = "server", s.Error.HTTPStatusCode
			if s.Error.SenderFault {
				traits["smithy.api#error"] = "client"
			}
		}
	case "list":
		out["member"] = to(s.Member.Shape)
	case "map":
		out["key"], out["value"] = to(s.Key.Shape), to(s.Value.Shape)
	case "string":
		if len(s.Enum) > 0 {
			out["type"], out["members"] = "enum", smithyEnum(s.Enum)
		}
	case "integer", "long", "boolean", "timestamp":
	default:
		return nil, fmt.Errorf("type %q has no translation", s.Type)
	}
	if s.Pattern != "" {
		traits["smithy.api#pattern"] = "^(?:" + s.Pattern + ")$"
	}
	if s.Sensitive {
		traits["smithy.api#sensitive"] = object{}
	}
	if bounds := s.smithyBounds(); len(bounds) > 0 {
		switch s.Type {
		case "integer", "long":
			traits["smithy.api#range"] = bounds
		default:
			traits["smithy.api#length"] = bounds
		}
	}
	return out, nil
}

func (s *described) smithyBounds() object {
	bounds := object{}
	if s.Min != nil {
		bounds["min"] = *s.Min
	}
	if s.Max != nil {
		bounds["max"] = *s.Max
	}
	return bounds
}

func (s *described) smithyMembers() (object, error) {
	members := object{}
	for _, m := range s.Members {
		if m.Location != "" || m.LocationName != "" {
			return nil, fmt.Errorf("member %s is outside the body, which has no translation", m.Name)
		}
		member := to(m.Shape)
		if s.requires(m.Name) {
			member["traits"] = object{"smithy.api#required": object{}}
		}
		members[m.Name] = member
	}
	return members, nil
}

// smithyEnum names the members after their values, in the letters that Smithy allows.
func smithyEnum(values []string) object {
	members := object{}
	for _, v := range values {
		name := strings.ToUpper(strings.NewReplacer("-", "_", ":", "_", ".", "_").Replace(v))
		members[name] = object{"target": "smithy.api#Unit", "traits": object{"smithy.api#enumValue": v}}
	}
	return members
}
