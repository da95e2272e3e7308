package secret

import "strings"

// IsCredential reports whether a text has the form of a credential that this server issues or takes: a workload access token
// (wat1.), a session token (ses1.), a secret access key (tabard_ and 40 characters), or a signed JWT in compact form. Such a text
// is no name, wherever it is given as one.
func IsCredential(s string) bool {
	const least = 32 // no token of ours and no JWT is shorter
	switch {
	case strings.HasPrefix(s, "wat1."), strings.HasPrefix(s, "ses1."):
		return len(s) >= least && strings.Trim(s[5:], base64url) == ""
	case strings.HasPrefix(s, "tabard_"):
		return len(s) == len("tabard_")+40 && strings.Trim(s[len("tabard_"):], "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
	case strings.HasPrefix(s, "eyJ"):
		return len(s) >= least && strings.Count(s, ".") >= 2 && strings.Trim(s, base64url+".") == ""
	}
	return false
}

const base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
