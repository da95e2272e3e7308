package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"
)

// model is a botocore service-2.json document, as far as we read it.
type model struct {
	Operations map[string]operation
	Shapes     map[string]*shape
}

type operation struct {
	HTTP struct {
		Method       string
		RequestURI   string
		ResponseCode int
	}
	Input, Output target
	Errors        []target
}

type target struct{ Shape string }

type shape struct {
	Type       string
	Enum       []string
	Min, Max   *int64
	Pattern    string
	Sensitive  bool
	Union      bool
	Exception  bool
	Required   []string
	Members    members
	Member     target // of a list
	Key, Value target // of a map
}

type member struct {
	Name         string
	Shape        string
	Location     string // "", "uri" or "querystring"
	LocationName string
}

// members keeps the order of the document, which is the order of the generated fields.
type members []member

func (m *members) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var one member
		if err := d.Decode(&one); err != nil {
			return err
		}
		one.Name = name.(string)
		*m = append(*m, one)
	}
	return nil
}

func (s *shape) requires(name string) bool {
	for _, r := range s.Required {
		if r == name {
			return true
		}
	}
	return false
}

// overlay is extra.json: what is merged into AWS's models, so that those stay untouched copies.
type overlay struct {
	About    string
	Shapes   map[string]*shape
	Members  map[string]members
	Patterns map[string]string
}

// source is one model and what is generated from it.
type source struct {
	name  string // of the files: models/<name>.json with dashes for underscores, <name>_gen.go
	plane string
	model model
}

func load(dir string) ([]source, error) {
	sources := []source{
		{name: "identity_control", plane: "PlaneControl"}, {name: "identity_data", plane: "PlaneData"}, {name: "tabard", plane: "PlaneTabard"},
	}
	files := []string{"identity-control.json", "identity-data.json", "tabard.json"}
	for i, f := range files {
		if err := read(filepath.Join(dir, f), &sources[i].model); err != nil {
			return nil, err
		}
	}
	var extra overlay
	if err := read(filepath.Join(dir, "extra.json"), &extra); err != nil {
		return nil, err
	}
	if err := merge(sources, extra); err != nil {
		return nil, err
	}
	return sources, agree(sources)
}

func read(file string, v any) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// merge adds the overlay's members and patterns to every model that has the structure or shape; each must be in one.
func merge(sources []source, extra overlay) error {
	used := map[string]bool{}
	for _, src := range sources {
		for name, add := range extra.Members {
			s, ok := src.model.Shapes[name]
			if !ok {
				continue
			}
			used[name] = true
			s.Members = append(s.Members, add...)
			for _, m := range add {
				if def, ok := extra.Shapes[m.Shape]; ok {
					src.model.Shapes[m.Shape] = def
				}
			}
			for _, def := range extra.Shapes {
				if def.Type == "list" && src.model.Shapes[def.Member.Shape] == nil {
					src.model.Shapes[def.Member.Shape] = extra.Shapes[def.Member.Shape]
				}
			}
		}
		for name, p := range extra.Patterns {
			if s, ok := src.model.Shapes[name]; ok {
				used[name] = true
				s.Pattern = p
			}
		}
	}
	for name := range extra.Members {
		if !used[name] {
			return fmt.Errorf("extra.json: no model has %s", name)
		}
	}
	for name := range extra.Patterns {
		if !used[name] {
			return fmt.Errorf("extra.json: no model has %s", name)
		}
	}
	return nil
}

// agree checks that shapes of one name are the same in every model, since each is emitted once.
func agree(sources []source) error {
	seen := map[string]*shape{}
	for _, src := range sources {
		for _, name := range sorted(src.model.Shapes) {
			s := src.model.Shapes[name]
			if old, ok := seen[name]; ok && !reflect.DeepEqual(old, s) {
				return fmt.Errorf("shape %s differs in %s from an earlier model", name, src.name)
			}
			seen[name] = s
		}
	}
	return nil
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
