package secret

import "strings"

// IsCredential reports whether a text is, or has in it as a word, something of the form of a credential that this
// server issues or takes: a workload access token (wat1.), a session token (ses1.), a secret access key (tabard_ and 40
// characters), or a signed JWT in compact form. Such a text is no name, wherever it is given as one, whatever stands
// around the credential: Bearer, a quote, the end of a line, a sentence about it.
func IsCredential(s string) bool {
	if !strings.Contains(s, "wat1.") && !strings.Contains(s, "ses1.") && !strings.Contains(s, "tabard_") && !strings.Contains(s, "eyJ") {
		return false // as almost always, and this is asked of every text of every request
	}
	for word := range strings.FieldsFuncSeq(s, func(r rune) bool { return !strings.ContainsRune(base64url+".", r) }) {
		if isCredential(word) {
			return true
		}
	}
	return false
}

func isCredential(s string) bool {
	const least = 32 // no token of ours and no JWT is shorter
	switch {
	case strings.HasPrefix(s, "wat1."), strings.HasPrefix(s, "ses1."):
		s = strings.TrimRight(s, ".") // of a sentence
		return len(s) >= least && strings.Trim(s[5:], base64url) == ""
	case strings.HasPrefix(s, "tabard_"):
		s = strings.TrimRight(s, ".")
		return len(s) == len("tabard_")+40 && strings.Trim(s[len("tabard_"):], "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
	case strings.HasPrefix(s, "eyJ"):
		return len(s) >= least && strings.Count(s, ".") >= 2
	}
	return false
}

const base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
