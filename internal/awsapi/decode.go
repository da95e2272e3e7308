package awsapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/fault"
)

// maxBody bounds a request's body (threat F01).
const maxBody = 512 << 10

// readBody reads the whole body, or fails with TooLarge: before reading where the length says so, else at the bound.
// Memory is taken as the bytes come: a length alone costs nothing.
func readBody(w http.ResponseWriter, r *http.Request, maxBody int64) ([]byte, error) {
	if err := tooLong(w, r, maxBody); err != nil {
		return nil, err
	}
	if r.ContentLength == 0 || r.Body == nil {
		return nil, nil
	}
	body := http.MaxBytesReader(w, r.Body, maxBody)
	var b []byte
	var err error
	if r.ContentLength > 0 && r.ContentLength <= bodyStep {
		b = make([]byte, r.ContentLength)
		_, err = io.ReadFull(body, b)
	} else {
		b, err = io.ReadAll(body)
	}
	if err == nil {
		return b, nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, fault.New(fault.TooLarge, "the request body has more than %d bytes", maxBody)
	}
	if busy, ok := errors.AsType[*fault.Error](err); ok {
		return nil, busy
	}
	return nil, fault.Wrap(fault.Invalid, err, "the request body ended early")
}

// tooLong refuses a body whose announced length is over the bound.
func tooLong(w http.ResponseWriter, r *http.Request, maxBody int64) error {
	if r.ContentLength <= maxBody {
		return nil
	}
	w.Header().Set("Connection", "close") // the rest is not worth reading
	return fault.New(fault.TooLarge, "the request body has more than %d bytes", maxBody)
}

// decoder turns JSON bodies into a Q, an input of package api. It is strict where encoding/json is not: names are
// case-sensitive, unknown and duplicate members, invalid UTF-8, lone surrogates, U+0000 and trailing data are refused.
// A null member is an absent one. It can nest no deeper than Q does, and it says which member is wrong.
//
// Security argument: two readers of one body that disagree on which of two members counts, or on the case of a name,
// are how a check is passed with one value and acted on with another. Here every body has one reading.
type decoder[Q any] struct{ plan *plan }

// newDecoder prepares the decoder of one route. It panics where Q has a type that no input of the models has.
func newDecoder[Q any]() decoder[Q] { return decoder[Q]{plan: planOf(reflect.TypeFor[Q]())} }

// decode reads body into a new Q. It does not validate beyond that; an empty body is an empty object. Every error is
// Invalid with the member's path.
func (d decoder[Q]) decode(body []byte) (*Q, error) {
	q := new(Q)
	if len(body) == 0 {
		return q, nil
	}
	if !utf8.Valid(body) {
		return nil, cannotParse("", "is not valid UTF-8")
	}
	s := scanner{data: body}
	if err := s.value(d.plan, reflect.ValueOf(q).Elem()); err != nil {
		return nil, err.toError()
	}
	if s.skipSpace(); s.pos != len(body) {
		return nil, s.syntax("the end of the body").toError()
	}
	return q, nil
}

// plan is what the decoder knows of a type.
type plan struct {
	kind   reflect.Kind
	ptr    bool // the value is a pointer to this
	typ    reflect.Type
	elem   *plan                // of a list or map
	fields map[string]fieldPlan // of a structure

	instant bool // an api.Timestamp
}

type fieldPlan struct {
	*plan
	index   int
	nonzero bool // a zero that was sent breaks the model's minimum
}

func planOf(t reflect.Type) *plan {
	p := &plan{typ: t}
	if t.Kind() == reflect.Pointer {
		p.ptr, p.typ = true, t.Elem()
	}
	p.kind = p.typ.Kind()
	if p.typ == reflect.TypeFor[api.Timestamp]() {
		p.instant = true
		return p
	}
	switch p.kind {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64:
	case reflect.Slice, reflect.Map:
		p.elem = planOf(p.typ.Elem())
	case reflect.Struct:
		p.fields = map[string]fieldPlan{}
		for i := range p.typ.NumField() {
			f := p.typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				panic(fmt.Sprintf("awsapi: %s.%s is no member of a model", p.typ, f.Name))
			}
			if name != "-" { // bound to the path or the query
				p.fields[name] = fieldPlan{plan: planOf(f.Type), index: i, nonzero: f.Tag.Get("api") == "nonzero"}
			}
		}
		if len(p.fields) > 64 {
			panic("awsapi: structure with more than 64 members")
		}
	default:
		panic(fmt.Sprintf("awsapi: no input has a member of type %s", t))
	}
	return p
}

// bad is what is wrong with a body; path grows from the inside out as the scanner returns.
type bad struct {
	path       string
	message    string
	constraint bool // the JSON is right and a constraint is not
}

// toError exists because a nil *bad in an error would not be nil.
func (b *bad) toError() error {
	if b.constraint {
		return breaksConstraints([]api.FieldError{{Name: b.path, Message: b.message}})
	}
	return cannotParse(b.path, "%s", b.message)
}

// in prefixes the path with the name of the member or the index that the failure lies in.
func (b *bad) in(name string) *bad {
	if b.path != "" && b.path[0] != '[' {
		name += "."
	}
	b.path = name + b.path
	return b
}

// scanner reads one body.
type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) skipSpace() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) syntax(want string) *bad {
	return &bad{message: fmt.Sprintf("is not valid JSON at byte %d: expected %s", s.pos, want)}
}

func (s *scanner) peek() byte {
	s.skipSpace()
	if s.pos == len(s.data) {
		return 0
	}
	return s.data[s.pos]
}

// take consumes c, or fails.
func (s *scanner) take(c byte) *bad {
	if s.peek() != c {
		return s.syntax("'" + string(rune(c)) + "'")
	}
	s.pos++
	return nil
}

func (s *scanner) literal(word string) bool {
	s.skipSpace()
	if len(s.data)-s.pos < len(word) || string(s.data[s.pos:s.pos+len(word)]) != word {
		return false
	}
	s.pos += len(word)
	return true
}

// value reads one value that is not null into v.
func (s *scanner) value(p *plan, v reflect.Value) *bad {
	if p.ptr {
		v.Set(reflect.New(p.typ))
		v = v.Elem()
	}
	if p.instant {
		return s.instant(v)
	}
	switch p.kind {
	case reflect.Struct:
		return s.structure(p, v)
	case reflect.Slice:
		return s.list(p, v)
	case reflect.Map:
		return s.entries(p, v)
	case reflect.Bool:
		if s.literal("true") {
			v.SetBool(true)
		} else if !s.literal("false") {
			return &bad{message: "must be true or false"}
		}
		return nil
	case reflect.String:
		if s.peek() != '"' {
			return &bad{message: "must be a string"}
		}
		text, err := s.text()
		if err == nil {
			v.SetString(text)
		}
		return err
	}
	return s.integer(v)
}

func (s *scanner) structure(p *plan, v reflect.Value) *bad {
	if s.peek() != '{' {
		return &bad{message: "must be an object"}
	}
	s.pos++
	var seen uint64
	for first := true; ; first = false {
		if s.peek() == '}' && first {
			s.pos++
			return nil
		}
		name, err := s.name()
		if err != nil {
			return err
		}
		f, ok := p.fields[string(name)]
		if !ok {
			return &bad{path: printable(name), message: "is not a known member; names are case-sensitive", constraint: true}
		}
		if seen&(1<<f.index) != 0 {
			return &bad{path: string(name), message: "occurs twice"}
		}
		seen |= 1 << f.index
		if !s.literal("null") {
			if err := s.value(f.plan, v.Field(f.index)); err != nil {
				return err.in(string(name))
			}
			if f.nonzero && v.Field(f.index).IsZero() {
				return &bad{path: string(name), message: "must not be empty or zero; leave it out instead", constraint: true}
			}
		}
		if done, err := s.next('}'); done || err != nil {
			return err
		}
	}
}

// next consumes the comma before another element, or the closing bracket.
func (s *scanner) next(closing byte) (done bool, err *bad) {
	switch s.peek() {
	case ',':
		s.pos++
		return false, nil
	case closing:
		s.pos++
		return true, nil
	}
	return false, s.syntax("',' or '" + string(rune(closing)) + "'")
}

// name reads a member's name and the colon. The result is valid until the next call.
func (s *scanner) name() ([]byte, *bad) {
	if s.peek() != '"' {
		return nil, s.syntax("a member's name")
	}
	start := s.pos + 1
	text, plain, err := s.scanText()
	if err != nil {
		return nil, err
	}
	if plain {
		return s.data[start : s.pos-1], s.take(':')
	}
	return []byte(text), s.take(':')
}

func (s *scanner) list(p *plan, v reflect.Value) *bad {
	if s.peek() != '[' {
		return &bad{message: "must be a list"}
	}
	s.pos++
	v.Set(reflect.MakeSlice(p.typ, 0, 2))
	if s.peek() == ']' {
		s.pos++
		return nil
	}
	for i := 0; ; i++ {
		if i == v.Cap() {
			v.Grow(1)
		}
		v.SetLen(i + 1)
		if err := s.value(p.elem, v.Index(i)); err != nil {
			return err.in("[" + strconv.Itoa(i) + "]")
		}
		if done, err := s.next(']'); done || err != nil {
			return err
		}
	}
}

func (s *scanner) entries(p *plan, v reflect.Value) *bad {
	if s.peek() != '{' {
		return &bad{message: "must be an object"}
	}
	s.pos++
	v.Set(reflect.MakeMap(p.typ))
	for first := true; ; first = false {
		if first && s.peek() == '}' {
			s.pos++
			return nil
		}
		name, err := s.name()
		if err != nil {
			return err
		}
		key := reflect.ValueOf(string(name))
		if v.MapIndex(key).IsValid() {
			return &bad{path: "[" + printable(name) + "]", message: "occurs twice"}
		}
		entry := reflect.New(p.typ.Elem()).Elem()
		if err := s.value(p.elem, entry); err != nil {
			return err.in("[" + printable([]byte(key.String())) + "]")
		}
		v.SetMapIndex(key, entry)
		if done, err := s.next('}'); done || err != nil {
			return err
		}
	}
}

func (s *scanner) integer(v reflect.Value) *bad {
	s.skipSpace()
	start := s.pos
	for s.pos < len(s.data) && strings.IndexByte("+-.0123456789Ee", s.data[s.pos]) >= 0 {
		s.pos++
	}
	digits := string(s.data[start:s.pos])
	unsigned := strings.TrimPrefix(digits, "-")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || unsigned == "" || unsigned[0] == '+' || len(unsigned) > 1 && unsigned[0] == '0' || v.OverflowInt(n) {
		return &bad{message: "must be an integer"}
	}
	v.SetInt(n)
	return nil
}

// instant reads a number of seconds since 1970, with milliseconds as its fraction.
func (s *scanner) instant(v reflect.Value) *bad {
	s.skipSpace()
	start := s.pos
	for s.pos < len(s.data) && strings.IndexByte("+-.0123456789Ee", s.data[s.pos]) >= 0 {
		s.pos++
	}
	var at api.Timestamp
	if number := s.data[start:s.pos]; !json.Valid(number) || at.UnmarshalJSON(number) != nil {
		return &bad{message: "must be a number of seconds since 1970"}
	}
	v.Set(reflect.ValueOf(at))
	return nil
}

// printable returns a name that is fit for an answer, or a stand-in: what a caller sends as a name may be anything.
func printable(name []byte) string {
	if len(name) > 64 {
		return "?"
	}
	for _, c := range name {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_-.:/", c) >= 0) {
			return "?"
		}
	}
	return string(name)
}
