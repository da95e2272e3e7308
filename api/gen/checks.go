package main

import (
	"fmt"
	"strconv"
	"strings"
)

// check writes the function or method that checks one shape, if a request can contain it.
func (w *writer) check(name string, s *shape) error {
	if !w.inputs[name] {
		return nil
	}
	switch s.Type {
	case "structure":
		w.checkStructure(name, s)
	case "string":
		return w.checkString(name, s)
	}
	return nil
}

// constrained reports whether a string shape has a check function of its own.
func constrained(s *shape) bool {
	return len(s.Enum) > 0 || s.Min != nil && *s.Min > 0 || s.Max != nil || s.Pattern != ""
}

func (w *writer) checkString(name string, s *shape) error {
	if !constrained(s) {
		return nil
	}
	w.printf("func check%s(s string) string {\n", name)
	if len(s.Enum) > 0 && s.Pattern == "" { // an overlay's pattern opens an enumeration
		quoted := make([]string, len(s.Enum))
		for i, v := range s.Enum {
			quoted[i] = strconv.Quote(v)
		}
		list := strings.Join(quoted, ", ")
		w.printf("\tswitch s {\n\tcase %s:\n\t\treturn \"\"\n\t}\n\treturn oneOf(%s)\n}\n\n", list, list)
		return nil
	}
	low, high := low(s), high(s)
	sized := low > 0 || high != "unbounded"
	if s.Pattern == "" {
		w.printf("\treturn checkLength(s, %d, %s)\n}\n\n", low, high)
		return nil
	}
	if sized {
		w.printf("\tif m := checkLength(s, %d, %s); m != \"\" {\n\t\treturn m\n\t}\n", low, high)
	}
	a, err := compile(s.Pattern)
	if err != nil {
		return fmt.Errorf("pattern %s: %w", s.Pattern, err)
	}
	w.printf("\tp := pattern{\n\t\tsource: %q,\n\t\tclass: %s,\n\t\tother: %d,\n\t\twidth: %d,\n\t\tnext: %s,\n\t\taccept: %s,\n\t}\n\treturn p.check(s)\n}\n\n",
		s.Pattern, bytesLiteral(a.class[:]), a.other, a.width, bytesLiteral(a.next), bytesLiteral(a.accept))
	return nil
}

// bytesLiteral writes a table as a string constant, which no code can change.
func bytesLiteral(b []byte) string {
	var out strings.Builder
	for i := 0; i < len(b); i += 64 {
		if i > 0 {
			out.WriteString(" +\n\t\t\t")
		}
		out.WriteString(strconv.Quote(string(b[i:min(i+64, len(b))])))
	}
	return out.String()
}

func low(s *shape) int64 {
	if s.Min == nil {
		return 0
	}
	return *s.Min
}

func high(s *shape) string {
	if s.Max == nil {
		return "unbounded"
	}
	return strconv.FormatInt(*s.Max, 10)
}

func (w *writer) checkStructure(name string, s *shape) {
	w.printf("// Validate returns what breaks the model's constraints, nil where nothing does.\n")
	w.printf("func (v *%s) Validate() []FieldError {\n\tvar c checks\n", name)
	if s.Union {
		var present []string
		for _, m := range s.Members {
			present = append(present, w.present(name, m))
		}
		w.printf("\tc.one(%s)\n", strings.Join(present, ", "))
	}
	for _, m := range s.Members {
		w.checkMember(name, s, m)
	}
	w.printf("\treturn c\n}\n\n")
}

// present is the expression that a member is there.
func (w *writer) present(owner string, m member) string {
	field := "v." + fieldName(m.Name)
	t := w.model.Shapes[m.Shape]
	switch {
	case t.Type == "structure", t.Type == "list", t.Type == "map", absentDiffers[owner+"."+m.Name]:
		return field + " != nil"
	case t.Type == "string":
		return field + ` != ""`
	case t.Type == "boolean":
		return field
	case t.Type == "timestamp":
		return "!" + field + ".IsZero()"
	}
	return field + " != 0"
}

func negate(expr string) string {
	switch {
	case strings.Contains(expr, " != "):
		return strings.Replace(expr, " != ", " == ", 1)
	case expr[0] == '!':
		return expr[1:]
	}
	return "!" + expr
}

func (w *writer) checkMember(owner string, s *shape, m member) {
	body := w.memberBody(owner, m)
	required := s.requires(m.Name) && !s.Union
	if required {
		w.printf("\tif %s {\n\t\tc.add(%q, isRequired)\n\t}", negate(w.present(owner, m)), m.Name)
		if body != "" {
			w.printf(" else {\n%s\t}", body)
		}
		w.printf("\n")
	} else if body != "" {
		w.printf("\tif %s {\n%s\t}\n", w.present(owner, m), body)
	}
}

// memberBody checks a member that is there.
func (w *writer) memberBody(owner string, m member) string {
	field, t := "v."+fieldName(m.Name), w.model.Shapes[m.Shape]
	if absentDiffers[owner+"."+m.Name] {
		field = "*" + field
	}
	var b strings.Builder
	switch t.Type {
	case "structure":
		fmt.Fprintf(&b, "c.sub(%q, %s.Validate())\n", m.Name, field)
	case "string":
		if constrained(t) {
			fmt.Fprintf(&b, "c.add(%q, check%s(%s))\n", m.Name, m.Shape, w.asString(field, m))
		}
	case "integer", "long":
		if t.Min != nil && t.Max != nil {
			fmt.Fprintf(&b, "c.add(%q, checkRange(int64(%s), %d, %d))\n", m.Name, field, *t.Min, *t.Max)
		}
	case "list", "map":
		if low(t) > 0 || t.Max != nil {
			fmt.Fprintf(&b, "c.add(%q, checkSize(len(%s), %d, %s))\n", m.Name, field, low(t), high(t))
		}
		w.elements(&b, m.Name, field, t)
	}
	return b.String()
}

func (w *writer) asString(field string, m member) string {
	if w.typeOf(m.Shape) == "string" {
		return field
	}
	return "string(" + field + ")"
}

func (w *writer) elements(b *strings.Builder, name, field string, t *shape) {
	shapes := w.model.Shapes
	if t.Type == "map" {
		k, v := t.Key.Shape, t.Value.Shape // every one of the models' is constrained
		fmt.Fprintf(b, "eachEntry(&c, %q, %s, check%s, check%s)\n", name, field, k, v)
		return
	}
	e := t.Member.Shape
	switch {
	case shapes[e].Type == "structure":
		fmt.Fprintf(b, "for i := range %s {\nif inner := %s[i].Validate(); inner != nil {\nc.sub(at(%q, i), inner)\n}\n}\n", field, field, name)
	case constrained(shapes[e]):
		fmt.Fprintf(b, "eachString(&c, %q, %s, check%s)\n", name, field, e)
	}
}
