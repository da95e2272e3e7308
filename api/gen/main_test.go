package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCommittedFilesAreCurrent(t *testing.T) {
	files, err := generate("../models")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(got)); d != "" {
			t.Errorf("%s is stale, run go generate ./api (-want +got):\n%.2000s", name, d)
		}
	}
	committed, err := filepath.Glob("../*_gen.go")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir("../"+dataDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			committed = append(committed, path)
		}
		return err
	})
	if err != nil || len(committed) != len(files) {
		t.Errorf("got the generated files %q, want %d (%v)", committed, len(files), err)
	}
}

// samples are values around the patterns of the models; each automaton must agree with package regexp on all of them.
func samples() []string {
	s := []string{"", "a", "é", "a b", "a\nb", "x.y.z", "a.b", "a..b", "....", ".....", "aa.bb", "abcde", "ab\nde", "a\né.b", "日本", "sg-0123456z", "sg-01234567", "subnet-01234567",
		"http://localhost:8081/cb", "myapp:x", "myapp:", "myapp: x", "://x", "https://x y", "urn:ietf:params:oauth:request_uri:abc-._~", "urn:ietf:params:oauth:request_uri:",
		"https://a/.well-known/openid-configuration", "https://a/.well-known/oauth-authorization-server", "https://a/.well-known/openid-configuration/", "https://a\n/.well-known/openid-configuration",
		"client_secret_post", "client_secret_basic", "client_secret_postx", "arn:aws:kms:us-east-1:000000000000:key/01234567-0123-0123-0123-012345678901", "arn:aws:kms:us-east-1:000000000000:key/x",
		"arn:aws:bedrock-agentcore:us-east-1:000000000000:token-vault/default/oauth2credentialprovider/x", "rcfg-0123456789abcdefg", "vpc-01234567", "/v1/x?y=%20", "key name", "key\u00a0name",
	}
	for b := 0; b < 128; b++ {
		s = append(s, string(rune(b)), "aaa"+string(rune(b))+"aaa", "a.b"+string(rune(b))+".c")
	}
	return s
}

func TestAutomataAgreeWithRegexp(t *testing.T) {
	sources, err := load("../models")
	if err != nil {
		t.Fatal(err)
	}
	inputs := map[string]bool{}
	checked := 0
	for _, src := range sources {
		for _, op := range src.model.Operations {
			reach(src.model.Shapes, op.Input.Shape, inputs)
		}
		for name, s := range src.model.Shapes {
			if s.Pattern == "" || !inputs[name] {
				continue
			}
			a, err := compile(s.Pattern)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			checked++
			re := regexp.MustCompile(`\A(?:` + regexp.MustCompile(`\\u([0-9A-F]{4})`).ReplaceAllString(s.Pattern, `\x{$1}`) + `)\z`)
			for _, v := range samples() {
				if got, want := a.matches(v), re.MatchString(v); got != want {
					t.Errorf("%s %s on %q: got %t, want %t", name, s.Pattern, v, got, want)
				}
			}
		}
	}
	if checked < 15 {
		t.Errorf("only %d patterns checked", checked)
	}
}

func TestCompileRefusesWhatItCannotExpress(t *testing.T) {
	for expr, want := range map[string]string{
		`a$|^b`:                  "anchor",
		`[à-ü]+`:                 "beyond ASCII",
		`[a-z-]{1,50}-[a-z]{10}`: "states",
		`(`:                      "missing closing",
	} {
		if _, err := compile(expr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("compile(%s): got %v, want an error with %q", expr, err, want)
		}
	}
}

func TestNames(t *testing.T) {
	for wire, want := range map[string]string{
		"clientId": "ClientID", "allowedResourceOauth2ReturnUrls": "AllowedResourceOauth2ReturnURLs", "jwksUri": "JWKSURI",
		"privateKeyJwtConfig": "PrivateKeyJWTConfig", "name": "Name", "clientIds": "ClientIDs", "secretArn": "SecretARN",
	} {
		if got := fieldName(wire); got != want {
			t.Errorf("fieldName(%s): got %s, want %s", wire, got, want)
		}
	}
	for value, want := range map[string]string{"IN_PROGRESS": "InProgress", "M2M": "M2M", "consent-app": "ConsentApp", "RS256": "RS256", "GoogleOauth2": "GoogleOauth2"} {
		if got := constantName(value); got != want {
			t.Errorf("constantName(%s): got %s, want %s", value, got, want)
		}
	}
}
