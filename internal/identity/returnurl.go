package identity

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/fault"
)

const fieldReturnURLs = "allowedResourceOauth2ReturnUrls"

// checkReturnURLs checks where a browser may be sent after consent (threat C17), and folds what is given twice.
// nil stays nil.
func checkReturnURLs(urls []string) ([]string, error) {
	if urls == nil {
		return nil, nil
	}
	out := make([]string, 0, len(urls))
	for _, u := range urls {
		if why := returnURLFlaw(u); why != "" {
			return nil, fault.Field(fieldReturnURLs, "%q is not a return URL: %s", clip(u), why)
		}
		if !slices.Contains(out, u) {
			out = append(out, u)
		}
	}
	return out, nil
}

// returnURLFlaw says what is wrong with a return URL, or "". The scheme of an installed app (RFC 8252 §7.1) passes;
// a scheme by which a browser runs or reads something of its own does not.
func returnURLFlaw(s string) string {
	for i := 0; i < len(s); i++ {
		// Browsers drop tabs and line breaks, and read a backslash as a slash: what they open would be another URL.
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return "it has a character that is not allowed in a URL"
		}
	}
	if len(s) > 2048 {
		return "it is longer than 2048 characters"
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme == "":
		return "it is not an absolute URL"
	case strings.Contains(s, "#"):
		return "it has a fragment"
	case u.User != nil:
		return "it has a user name"
	}
	switch u.Scheme { // url.Parse made it lower case
	case "https":
		return webFlaw(u)
	case "http":
		if why := webFlaw(u); why != "" {
			return why
		}
		if !IsLoopback(u.Hostname()) {
			return "http is allowed on loopback only (localhost, 127.0.0.0/8, [::1])"
		}
	case "javascript", "data", "vbscript", "file", "blob", "filesystem", "about", "view-source", "chrome", "resource",
		"jar", "intent", "ws", "wss", "ftp", "mailto", "tel", "sms":
		return "the scheme " + u.Scheme + " is not allowed"
	default:
		if strings.Contains(u.Host, "@") {
			return "it has a user name"
		}
	}
	return ""
}

// webFlaw checks what http and https have in common.
func webFlaw(u *url.URL) string {
	switch {
	case u.Opaque != "" || u.Hostname() == "":
		return "it has no host"
	case strings.ContainsAny(u.Host, "%@"):
		return "its host is not plain"
	case strings.HasSuffix(u.Host, ":"):
		return "its port is empty"
	}
	return ""
}

// IsLoopback reports whether host names this machine: localhost or a loopback address in its usual form.
func IsLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Zone() == "" && a.IsLoopback() && !a.Is4In6()
}
