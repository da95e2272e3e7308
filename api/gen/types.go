package main

import (
	"fmt"
	"strconv"
	"strings"
)

// operations writes the names and the table.
func (w *writer) operations() {
	w.printf("// Names of the operations.\nconst (\n")
	for _, name := range sorted(w.model.Operations) {
		w.printf("\tOp%s = %q\n", name, name)
	}
	camel := constantName(w.name)
	w.printf(")\n\nfunc %s%sOperations() []Operation {\n\treturn []Operation{\n", strings.ToLower(camel[:1]), camel[1:])
	for _, name := range sorted(w.model.Operations) {
		op := w.model.Operations[name]
		var errs []string
		for _, e := range op.Errors {
			errs = append(errs, exceptionName(e.Shape))
		}
		w.printf("\t\t{Op%s, %s, %q, %q, %d, []string{%s}},\n", name, w.plane, op.HTTP.Method, op.HTTP.RequestURI, op.HTTP.ResponseCode, strings.Join(errs, ", "))
	}
	w.printf("\t}\n}\n\n")
}

func exceptionName(shape string) string { return "Exception" + strings.TrimSuffix(shape, "Exception") }

func (w *writer) exceptions() {
	var names []string
	for _, name := range sorted(w.model.Shapes) {
		if w.model.Shapes[name].Exception && !w.emitted[name] {
			w.emitted[name] = true
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return
	}
	w.printf("// Names of the exceptions that the models declare.\nconst (\n")
	for _, name := range names {
		w.printf("\t%s = %q\n", exceptionName(name), name)
	}
	w.printf(")\n\n")
}

func (w *writer) enum(name string, s *shape) {
	w.printf("// %s is an enumeration.\ntype %s string\n\n// The values of %s.\nconst (\n", name, name, name)
	for _, v := range s.Enum {
		w.printf("\t%s%s %s = %q\n", name, constantName(v), name, v)
	}
	w.printf(")\n\n")
}

func (w *writer) structure(name string, s *shape) {
	switch {
	case strings.HasSuffix(name, "Request"):
		w.printf("// %s is the input of %s.\n", name, strings.TrimSuffix(name, "Request"))
	case strings.HasSuffix(name, "Response"):
		w.printf("// %s is the output of %s.\n", name, strings.TrimSuffix(name, "Response"))
	case s.Union:
		w.printf("// %s is a union: exactly one member is present.\n", name)
	default:
		w.printf("// %s is a structure of the model.\n", name)
	}
	w.printf("type %s struct {\n", name)
	for _, m := range s.Members {
		w.printf("\t%s %s %s%s\n", fieldName(m.Name), w.goType(name, m), w.tag(name, s, m), w.remark(s, m))
	}
	w.printf("}\n\n")
}

// absentDiffers names the plain members whose absence means something else than their zero value.
var absentDiffers = map[string]bool{
	"UpdateConsentPortalRequest.description": true, // absent leaves it, empty empties it
}

func (w *writer) goType(owner string, m member) string {
	t := w.typeOf(m.Shape)
	if w.model.Shapes[m.Shape].Type == "structure" || absentDiffers[owner+"."+m.Name] {
		return "*" + t
	}
	return t
}

func (w *writer) typeOf(name string) string {
	s := w.model.Shapes[name]
	switch {
	case s.Type == "structure", len(s.Enum) > 0:
		return name
	case s.Type == "list":
		return "[]" + w.typeOf(s.Member.Shape)
	case s.Type == "map":
		return "map[string]" + w.typeOf(s.Value.Shape)
	case s.Type == "string" && s.Sensitive:
		return "Sensitive"
	case s.Type == "timestamp":
		return "Timestamp"
	}
	plain, ok := map[string]string{"string": "string", "boolean": "bool", "integer": "int", "long": "int64"}[s.Type]
	if !ok {
		panic(fmt.Sprintf("shape %s has the unknown type %q", name, s.Type))
	}
	return plain
}

func (w *writer) tag(owner string, s *shape, m member) string {
	var tag string
	switch m.Location {
	case "uri":
		tag = fmt.Sprintf(`json:"-" uri:%q`, m.LocationName)
	case "querystring":
		tag = fmt.Sprintf(`json:"-" query:%q`, m.LocationName)
	default:
		tag = fmt.Sprintf(`json:%q`, m.Name+w.omit(s, m))
	}
	if w.excludesZero(owner, s, m) {
		tag += ` api:"nonzero"`
	}
	return "`" + tag + "`"
}

// omit tells encoding/json to leave out what is absent. An empty list that is there is written.
func (w *writer) omit(s *shape, m member) string {
	if s.requires(m.Name) {
		return ""
	}
	switch w.model.Shapes[m.Shape].Type {
	case "list", "map", "timestamp":
		return ",omitzero"
	}
	return ",omitempty"
}

// excludesZero reports whether an optional plain member of a request may be absent but not zero.
func (w *writer) excludesZero(owner string, s *shape, m member) bool {
	t := w.model.Shapes[m.Shape]
	if !w.inputs[owner] || s.requires(m.Name) || absentDiffers[owner+"."+m.Name] {
		return false
	}
	switch t.Type {
	case "string":
		if len(t.Enum) > 0 || t.Min != nil && *t.Min > 0 {
			return true
		}
		if t.Pattern == "" {
			return false
		}
		a, err := compile(t.Pattern)
		return err == nil && !a.matches("")
	case "integer", "long":
		return t.Min != nil && *t.Min > 0
	}
	return false
}

// remark says the constraints beside the field.
func (w *writer) remark(s *shape, m member) string {
	var parts []string
	if s.requires(m.Name) && !s.Union {
		parts = append(parts, "required")
	}
	t := w.model.Shapes[m.Shape]
	if b := bounds(t); b != "" {
		parts = append(parts, b)
	}
	if t.Type == "list" {
		if b := bounds(w.model.Shapes[t.Member.Shape]); b != "" {
			parts = append(parts, "each "+b)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return " // " + strings.Join(parts, "; ")
}

func bounds(t *shape) string {
	unit := map[string]string{"string": " characters", "list": " entries", "map": " entries"}[t.Type]
	var b string
	switch {
	case t.Min != nil && t.Max != nil:
		b = strconv.FormatInt(*t.Min, 10) + ".." + strconv.FormatInt(*t.Max, 10) + unit
	case t.Max != nil:
		b = "at most " + strconv.FormatInt(*t.Max, 10) + unit
	case t.Min != nil:
		b = "at least " + strconv.FormatInt(*t.Min, 10) + unit
	}
	if t.Pattern != "" {
		b = strings.TrimSpace(b + " " + t.Pattern)
	}
	return b
}
