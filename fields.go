package tabard

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"

	"golang.org/x/oauth2"
)

// Fields declares all that the struct S asks for by its tags:
//
//	type Creds struct {
//		Calendar *http.Client  `tabard:"google,scopes=https://www.googleapis.com/auth/calendar.events"`
//		Mail     *tabard.Token `tabard:"microsoft,scopes=Mail.Read offline_access"`
//		Weather  tabard.APIKey `tabard:"weather"`
//	}
//
// A tag is the provider's name and then options: scopes, resources, audiences and hosts (lists, separated by spaces),
// flow (user, m2m, obo), return (the return URL), and param.NAME for each custom parameter. Values with a comma need a
// declaration in Go. The type of the field says what it is given: *http.Client, oauth2.TokenSource and *Token by
// OAuth2, APIKey as a key. Fields without the tag are left alone.
type Fields[S any] struct{}

// Validate checks the tags of S, without any call.
func (Fields[S]) Validate() error {
	_, err := planOf(reflect.TypeFor[S]())
	return err
}

func (Fields[S]) get(ctx context.Context, c *Client) (S, error) {
	var s S
	err := c.Fill(ctx, &s)
	return s, err
}

// Fill gives each tagged field of the struct that dst points to its credential, for the user in ctx; Fields describes
// the tags. It is all or nothing: after an error, dst is as before. Also for fields of *http.Client and
// oauth2.TokenSource a token is got now, so that a missing consent shows before the tool begins.
func (c *Client) Fill(ctx context.Context, dst any) error {
	ptr := reflect.ValueOf(dst)
	if ptr.Kind() != reflect.Pointer || ptr.IsNil() {
		return invalid("Fill needs a pointer to a struct, not %T", dst)
	}
	plan, err := c.plans.of(ptr.Type().Elem())
	if err != nil {
		return err
	}
	filled := make([]reflect.Value, len(plan))
	for i, f := range plan {
		value, err := f.fetch(ctx, c)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		filled[i] = reflect.ValueOf(value)
	}
	for i, f := range plan {
		ptr.Elem().Field(f.index).Set(filled[i])
	}
	return nil
}

// field is one tagged field, checked.
type field struct {
	index int
	name  string // Struct.Field, for errors
	typ   reflect.Type
	need  OAuth2
}

func (f field) fetch(ctx context.Context, c *Client) (any, error) {
	if f.typ == reflect.TypeFor[APIKey]() {
		return c.APIKey(ctx, KeyFrom(f.need.Provider))
	}
	tok, err := c.Token(ctx, f.need)
	if err != nil {
		return nil, err
	}
	switch f.typ {
	case reflect.TypeFor[*http.Client]():
		return c.httpClient(c.source(ctx, f.need, tok)), nil
	case reflect.TypeFor[oauth2.TokenSource]():
		return c.source(ctx, f.need, tok), nil
	}
	return tok, nil
}

// planCache keeps the outcome of parsing a struct's tags, by its type.
type planCache struct{ byType sync.Map }

type plan struct {
	fields []field
	err    error
}

func (p *planCache) of(t reflect.Type) ([]field, error) {
	if known, ok := p.byType.Load(t); ok {
		return known.(plan).fields, known.(plan).err
	}
	fields, err := planOf(t)
	p.byType.Store(t, plan{fields, err})
	return fields, err
}

func planOf(t reflect.Type) ([]field, error) {
	if t.Kind() != reflect.Struct {
		return nil, invalid("credentials are filled into a struct, not into %s", t)
	}
	var fields []field
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, ok := sf.Tag.Lookup("tabard")
		if !ok || tag == "-" {
			continue
		}
		f := field{index: i, name: t.Name() + "." + sf.Name, typ: sf.Type}
		if !sf.IsExported() {
			return nil, invalid("%s has a tabard tag but is not exported", f.name)
		}
		var err error
		if f.need, err = parseTag(sf.Type, tag); err != nil {
			return nil, &Error{Code: ErrInvalid, Message: f.name + ": " + err.Error()}
		}
		fields = append(fields, f)
	}
	if len(fields) == 0 {
		return nil, invalid("%s has no field with a tabard tag", t)
	}
	return fields, nil
}

// parseTag reads one tag; Fields has the grammar. Its errors are without the package's prefix.
func parseTag(t reflect.Type, tag string) (OAuth2, error) {
	isKey := t == reflect.TypeFor[APIKey]()
	switch t {
	case reflect.TypeFor[APIKey](), reflect.TypeFor[*Token](), reflect.TypeFor[*http.Client](), reflect.TypeFor[oauth2.TokenSource]():
	default:
		return OAuth2{}, fmt.Errorf("a field of type %s cannot be filled: use *http.Client, oauth2.TokenSource, *tabard.Token or tabard.APIKey", t)
	}
	provider, rest, more := strings.Cut(tag, ",")
	need := OAuth2{Provider: strings.TrimSpace(provider)}
	seen := map[string]bool{}
	for more {
		var option string
		option, rest, more = strings.Cut(rest, ",")
		name, value, hasValue := strings.Cut(option, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if seen[name] {
			return OAuth2{}, fmt.Errorf("option %q is given twice", name)
		}
		seen[name] = true
		if name == "apikey" && !hasValue {
			if !isKey {
				return OAuth2{}, fmt.Errorf("option apikey needs a field of type tabard.APIKey, not %s", t)
			}
			continue
		}
		if isKey {
			return OAuth2{}, fmt.Errorf("option %q has no meaning for an API key", name)
		}
		if err := need.setOption(name, value); err != nil {
			return OAuth2{}, err
		}
	}
	if err := need.Validate(); err != nil {
		return OAuth2{}, fmt.Errorf("%s", err.(*Error).Message)
	}
	return need, nil
}

func (d *OAuth2) setOption(name, value string) error {
	if value == "" {
		return fmt.Errorf("option %q needs a value, as in %s=…", name, name)
	}
	if parameter, ok := strings.CutPrefix(name, "param."); ok {
		if d.CustomParameters == nil {
			d.CustomParameters = map[string]string{}
		}
		d.CustomParameters[parameter] = value
		return nil
	}
	switch name {
	case "scopes":
		d.Scopes = strings.Fields(value)
	case "resources":
		d.Resources = strings.Fields(value)
	case "audiences":
		d.Audiences = strings.Fields(value)
	case "hosts":
		d.Hosts = strings.Fields(value)
	case "return":
		d.ReturnURL = value
	case "flow":
		switch value {
		case "user":
			d.Flow = UserFederation
		case "m2m":
			d.Flow = M2M
		case "obo":
			d.Flow = OnBehalfOf
		default:
			return fmt.Errorf("flow %q must be user, m2m or obo", value)
		}
	default:
		return fmt.Errorf("unknown option %q: the options are scopes, flow, resources, audiences, hosts, return, param.NAME and apikey", name)
	}
	return nil
}
