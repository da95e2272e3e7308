package standin

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"net/http"
)

// stylesheet is the one look of every page: system fonts, both colour schemes, no assets, usable at 320 px.
const stylesheet = `
:root{color-scheme:light dark;--bg:#f4f5f7;--card:#fff;--ink:#1b1f24;--soft:#545b64;--line:#8a929c;--act:#0b57d0;--on:#fff;--bad:#a5111b}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1f2328;--ink:#eceff2;--soft:#b0b8c1;--line:#717a85;--act:#9cc3ff;--on:#0a1a33;--bad:#ffb0b0}}
*{box-sizing:border-box}
body{margin:0;padding:1rem;background:var(--bg);color:var(--ink);font:1rem/1.5 system-ui,sans-serif}
main{max-width:28rem;margin:6vh auto 0;padding:1.5rem;background:var(--card);border:1px solid var(--line);border-radius:.75rem}
main.wide{max-width:44rem}
h1{margin:0 0 .5rem;font-size:1.4rem;line-height:1.25}
h2{margin:1.5rem 0 .25rem;font-size:1.05rem}
p,ul{margin:.5rem 0}
ul{padding:0;list-style:none}
li{display:grid;grid-template-columns:auto 1fr;gap:0 .75rem;padding:.5rem 0}
li code{grid-column:2}
.brand{margin:0 0 1rem;color:var(--soft);font-size:.85rem;letter-spacing:.04em}
.who{color:var(--soft);overflow-wrap:anywhere}
.bad{color:var(--bad);font-weight:600}
label{display:block;margin-top:1rem;font-weight:600}
li label{margin:0}
input[type=text],input[type=password]{width:100%;margin-top:.25rem;padding:.6rem;font:inherit;color:inherit;background:var(--bg);border:1px solid var(--line);border-radius:.4rem}
input[type=checkbox]{width:1.15rem;height:1.15rem;margin:.15rem 0 0;accent-color:var(--act)}
code{font-size:.8rem;color:var(--soft);overflow-wrap:anywhere}
.row{display:flex;flex-wrap:wrap;gap:.75rem;margin-top:1.5rem}
button{flex:1 1 8rem;min-height:2.75rem;padding:.5rem 1rem;font:inherit;font-weight:600;border:1px solid var(--act);border-radius:.4rem;background:var(--act);color:var(--on);cursor:pointer}
button.quiet{background:transparent;color:var(--act)}
a{color:var(--act)}
:focus-visible{outline:3px solid var(--act);outline-offset:2px}
article{padding:.5rem 0;border-top:1px solid var(--line);overflow-wrap:anywhere}
article h3{margin:0;font-size:1rem}
`

const layout = `{{define "top"}}<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{{.Title}} - {{brand}}</title><style>{{style}}</style></head><body>{{end}}
{{define "end"}}</body></html>
{{end}}

{{define "login"}}{{template "top" .}}<main>
<p class="brand">{{brand}}</p><h1>{{.Title}}</h1>
{{if .Client}}<p class="who">to continue to {{.Client}}</p>{{end}}
{{if .Hint}}<p class="who">{{.Hint}}</p>{{end}}
{{if .Error}}<p class="bad" role="alert" id="wrong">{{.Error}}</p>{{end}}
<form method="post" action="{{.Action}}">
<input type="hidden" name="form" value="{{.Form}}"><input type="hidden" name="request" value="{{.Request}}">
<label for="username">{{.Label}}</label>
<input type="text" id="username" name="username" value="{{.Username}}" autocomplete="username" autocapitalize="none" spellcheck="false" required{{if not .Username}} autofocus{{end}}{{if .Error}} aria-describedby="wrong"{{end}}>
<label for="password">Password</label>
<input type="password" id="password" name="password" autocomplete="current-password" required{{if .Username}} autofocus{{end}}{{if .Error}} aria-describedby="wrong"{{end}}>
<div class="row"><button type="submit">Sign in</button></div>
</form></main>{{template "end"}}{{end}}

{{define "consent"}}{{template "top" .}}<main>
<p class="brand">{{brand}}</p><h1>{{.Client}} wants access to your calendar account</h1>
<p class="who">Signed in as {{.User.FullName}}, {{.User.Email}}</p>
<form method="post" action="{{.Action}}">
<input type="hidden" name="form" value="{{.Form}}"><input type="hidden" name="request" value="{{.Request}}">
<p>If you allow it, {{.Client}} can:</p>
<ul>{{range $i, $s := .Scopes}}<li><input type="checkbox" id="scope-{{$i}}" name="scope" value="{{$s.Name}}" checked>
<label for="scope-{{$i}}">{{$s.Text}}</label><code>{{$s.Name}}</code></li>{{end}}</ul>
<p>Then you go back to <strong>{{.Host}}</strong>.</p>
<div class="row"><button type="submit" name="decision" value="allow">Allow</button>
<button type="submit" name="decision" value="deny" class="quiet">Deny</button></div>
</form></main>{{template "end"}}{{end}}

{{define "calendar"}}{{template "top" .}}<main class="wide">
<p class="brand">{{brand}}</p><h1>{{.Title}}</h1>
<p class="who">{{.User.Email}}, times in {{.Zone}}</p>
{{range .Days}}<section><h2>{{.Name}}</h2>
{{range .Events}}<article><h3>{{.Summary}}</h3><p>{{if .Start}}<time datetime="{{.Start}}">{{.From}}</time> to <time datetime="{{.End}}">{{.To}}</time>{{else}}all day{{end}}{{if .Place}}, {{.Place}}{{end}}</p>{{if .Text}}<p>{{.Text}}</p>{{end}}</article>
{{end}}</section>{{else}}<p>There is nothing in this calendar yet.</p>{{end}}
<form method="post" action="/signout"><input type="hidden" name="form" value="{{.Form}}"><div class="row"><button type="submit" class="quiet">Sign out</button></div></form>
</main>{{template "end"}}{{end}}

{{define "message"}}{{template "top" .}}<main><p class="brand">{{brand}}</p><h1>{{.Title}}</h1><p>{{.Text}}</p></main>{{template "end"}}{{end}}
`

// pages renders the HTML of both servers.
type pages struct {
	templates *template.Template
	policy    string
}

// newPages takes the name that every page shows, so that a person sees which of the two servers asks for a password.
func newPages(brand string) (*pages, error) {
	funcs := template.FuncMap{"style": func() template.CSS { return stylesheet }, "brand": func() string { return brand }}
	t, err := template.New("pages").Funcs(funcs).Parse(layout)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(stylesheet))
	// form-action cannot be 'self': Chromium applies it to every redirect that follows a form, and ours lead to the
	// client's origin and on from there.
	policy := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; form-action http: https:; base-uri 'none'; frame-ancestors 'none'"
	return &pages{templates: t, policy: policy}, nil
}

func (p *pages) render(w http.ResponseWriter, status int, name string, data any) {
	var b bytes.Buffer
	if err := p.templates.ExecuteTemplate(&b, name, data); err != nil {
		http.Error(w, "the page could not be rendered", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", p.policy)
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

// message is a page that says one thing.
func (p *pages) message(w http.ResponseWriter, status int, title, text string) {
	p.render(w, status, "message", struct{ Title, Text string }{title, text})
}

// loginPage is the data of the template "login".
type loginPage struct {
	Title, Client, Hint, Error, Action, Form, Request, Label, Username string
}
