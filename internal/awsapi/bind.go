package awsapi

import (
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"unicode/utf8"
)

// binding is a member of an input that comes in the path (one string) or in the query (a list of strings).
type binding struct {
	index int
	name  string
	query bool
}

// bindingsOf panics where Q has a binding that no input of the models has.
func bindingsOf(t reflect.Type) []binding {
	var all []binding
	for i := range t.NumField() {
		f := t.Field(i)
		b := binding{index: i, name: f.Tag.Get("uri")}
		want := reflect.TypeFor[string]()
		if b.name == "" {
			b.name, b.query, want = f.Tag.Get("query"), true, reflect.TypeFor[[]string]()
		}
		if b.name == "" {
			continue
		}
		if f.Type != want {
			panic(fmt.Sprintf("awsapi: %s.%s cannot be bound to path or query", t, f.Name))
		}
		all = append(all, b)
	}
	return all
}

// bind sets the members of q that come in the path or the query. The signature covers both, as they were sent.
func bind(r *http.Request, all []binding, q reflect.Value) error {
	for _, b := range all {
		if !b.query {
			s := r.PathValue(b.name)
			if !utf8.ValidString(s) {
				return cannotParse(b.name, "is not valid UTF-8")
			}
			q.Field(b.index).SetString(s)
			continue
		}
		values, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return cannotParse(b.name, "is not percent-encoded")
		}
		for _, s := range values[b.name] {
			if !utf8.ValidString(s) {
				return cannotParse(b.name, "is not valid UTF-8")
			}
		}
		q.Field(b.index).Set(reflect.ValueOf(values[b.name]))
	}
	return nil
}
