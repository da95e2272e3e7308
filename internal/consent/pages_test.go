package consent

import (
	"bytes"
	"io/fs"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// pageData has one value of what each template is given.
func pageData() map[string]func() any {
	return map[string]func() any{
		"ending.html": func() any { return new(ending) },
		"hosted.html": func() any { return &asked{Scopes: []scope{{}, {}}} },
	}
}

// fill sets every text of v, at any depth, to what text returns for its name.
func fill(v reflect.Value, name string, text func(name string) string) {
	switch v.Kind() {
	case reflect.Pointer:
		fill(v.Elem(), name, text)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), v.Type().Field(i).Name, text)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			fill(v.Index(i), name, text)
		}
	case reflect.String:
		v.SetString(text(name))
	}
}

var marks = regexp.MustCompile(`<[^>]*>`)

// M28: whatever text a page is given, in every field of every page, is text there: it makes no element, ends no
// attribute and adds none.
func TestM28_HostileTextInEveryFieldOfEveryPage(t *testing.T) {
	pages, err := parsePages()
	if err != nil {
		t.Fatal(err)
	}
	listed, err := fs.Glob(files, "templates/*.html")
	if err != nil || len(listed) != len(pageData()) {
		t.Fatalf("got the templates %v, and data for %d of them", listed, len(pageData()))
	}
	render := func(page string, text func(name string) string) string {
		data := pageData()[page]()
		fill(reflect.ValueOf(data), "", text)
		var out bytes.Buffer
		if err := pages.ExecuteTemplate(&out, page, data); err != nil {
			t.Fatalf("%s: %v", page, err)
		}
		return out.String()
	}
	for page := range pageData() {
		want := marks.FindAllString(render(page, func(string) string { return "plain" }), -1)
		if len(want) < 10 {
			t.Fatalf("%s has only the elements %v", page, want)
		}
		for _, hostile := range []string{
			`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `" autofocus onfocus="alert(1)`, `</title><svg/onload=alert(1)>`,
			`--><b>`, `{{.Token}}`, "<\u0000script>", "javascript:alert(1)", "<a href=//evil.example>here</a>", "&lt;b&gt;",
		} {
			got := render(page, func(string) string { return hostile })
			bare := marks.FindAllString(strings.ReplaceAll(got, `="plain"`, ""), -1)
			for i, mark := range bare {
				if i >= len(want) || element(mark) != element(want[i]) {
					t.Errorf("%s with %q: the element %d is %s", page, hostile, i, mark)
					break
				}
			}
			if len(bare) != len(want) {
				t.Errorf("%s with %q: %d elements, want %d", page, hostile, len(bare), len(want))
			}
			if strings.ContainsAny(hostile, "<>\"'") && strings.Contains(got, hostile) {
				t.Errorf("%s has %q as it is", page, hostile)
			}
		}
		for name := range names(pageData()[page]()) {
			text := func(n string) string {
				if n == name {
					return `<script id="hostile">`
				}
				return "plain"
			}
			if got := render(page, text); strings.Contains(got, `<script`) || strings.Contains(got, `id="hostile"`) {
				t.Errorf("the field %s of %s is not escaped", name, page)
			}
		}
	}
}

// element is a mark with its attributes' names and without their values.
func element(mark string) string { return regexp.MustCompile(`"[^"]*"`).ReplaceAllString(mark, `""`) }

// names are those of the texts of v.
func names(v any) map[string]bool {
	all := map[string]bool{}
	fill(reflect.ValueOf(v), "", func(name string) string { all[name] = true; return "" })
	return all
}
