package awsapi

import (
	"reflect"
	"strconv"
	"strings"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// member is a member of an input that holds text which is no secret by its model, and so may reach the log and the
// trail.
type member struct {
	index  []int
	name   string
	within []member // of a structure, behind a pointer or in a list or map
}

// membersOf returns the members of a structure that hold such text, at any depth.
func membersOf(t reflect.Type) []member { return membersBelow(t, map[reflect.Type]bool{}) }

func membersBelow(t reflect.Type, above map[reflect.Type]bool) (all []member) {
	if above[t] { // it holds itself: as deep as that nothing reaches the log
		return nil
	}
	above[t] = true
	defer delete(above, t)
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			name = f.Tag.Get("uri") + f.Tag.Get("query")
		}
		m := member{index: f.Index, name: name}
		inner := f.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice || inner.Kind() == reflect.Map {
			inner = inner.Elem()
		}
		switch {
		case inner == reflect.TypeFor[api.Sensitive]() && f.Type.Kind() != reflect.Map: // a map's keys are text
			continue
		case inner.Kind() == reflect.Struct:
			if m.within = membersBelow(inner, above); len(m.within) == 0 {
				continue
			}
		case inner.Kind() != reflect.String && f.Type.Kind() != reflect.Map:
			continue
		}
		all = append(all, m)
	}
	return all
}

// misplaced returns an Invalid fault that names a member which holds a credential where the model has none: it would
// reach the log and the trail as a name (threat M18). A checkpoint's token is a JWT and public.
func misplaced(all []member, v reflect.Value, path string) error {
	for _, m := range all {
		if m.name == "checkpoint" {
			continue
		}
		if err := m.check(v.FieldByIndex(m.index), path+m.name); err != nil {
			return err
		}
	}
	return nil
}

func (m member) check(v reflect.Value, path string) error {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return m.check(v.Elem(), path)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return nil
		}
		for i := range v.Len() {
			if err := m.check(v.Index(i), path+"["+strconv.Itoa(i)+"]"); err != nil {
				return err
			}
		}
	case reflect.Map:
		for iter := v.MapRange(); iter.Next(); {
			if err := m.check(iter.Key(), path); err != nil {
				return err
			}
			if err := m.check(iter.Value(), path); err != nil {
				return err
			}
		}
	case reflect.Struct:
		return misplaced(m.within, v, path+".")
	case reflect.String:
		if v.Type() != reflect.TypeFor[api.Sensitive]() && secret.IsCredential(v.String()) {
			return fault.Field(path, "holds a credential, which does not belong here. Tabard did not record it, but a proxy on the way may have: replace the credential")
		}
	}
	return nil
}
