package standin

import (
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/html"
)

// form is an HTML form as a browser would send it.
type form struct {
	method, action string
	fields         url.Values      // what is sent if nobody touches anything; buttons are not
	names          map[string]bool // of fields and buttons
}

// parseForms finds the forms of a page. The parser accepts anything, as browsers do.
func parseForms(page string) []form {
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		return nil
	}
	var forms []form
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && n.Data == "form" {
			forms = append(forms, readForm(n))
		}
	}
	return forms
}

func readForm(n *html.Node) form {
	f := form{method: http.MethodGet, action: attribute(n, "action"), fields: url.Values{}, names: map[string]bool{}}
	if strings.EqualFold(attribute(n, "method"), "post") {
		f.method = http.MethodPost
	}
	for e := range n.Descendants() {
		name := attribute(e, "name")
		if e.Type != html.ElementNode || name == "" {
			continue
		}
		kind := strings.ToLower(attribute(e, "type"))
		switch e.Data {
		case "button":
			f.names[name] = true
		case "textarea":
			f.names[name] = true
			f.fields.Add(name, text(e))
		case "input":
			f.names[name] = true
			if kind == "submit" || ((kind == "checkbox" || kind == "radio") && !present(e, "checked")) {
				continue
			}
			f.fields.Add(name, attribute(e, "value"))
		}
	}
	return f
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func present(n *html.Node, key string) bool {
	for _, a := range n.Attr {
		if a.Key == key {
			return true
		}
	}
	return false
}

func text(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return b.String()
}
