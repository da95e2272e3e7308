package identity_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

func TestWorkloads(t *testing.T) {
	w := newWorld(t)
	ctx, admin := t.Context(), caller(access.Admin)
	made := ok(w.CreateWorkload(ctx, admin, identity.NewWorkload{
		Name: "agent-a", ReturnURLs: []string{"https://app.example.com/cb", "https://app.example.com/cb", "http://localhost:3000/cb"},
		Tags: map[string]string{"team": "x", identity.TagVault: "default"},
	}))(t)
	if diff := cmp.Diff([]string{"https://app.example.com/cb", "http://localhost:3000/cb"}, made.ReturnURLs); diff != "" {
		t.Errorf("return URLs (-want +got):\n%s", diff)
	}
	if made.UID == "" || made.Generation != 1 || made.Assertable() || made.Created.IsZero() {
		t.Errorf("got %+v", made)
	}
	_, err := w.CreateWorkload(ctx, admin, identity.NewWorkload{Name: "agent-a"})
	wantCode(t, "the same name", err, fault.Invalid)
	if got, want := fault.Public(err).Msg, "workload identity with name: agent-a already exists"; got != want {
		t.Errorf("got message %q, want %q", got, want)
	}
	got := ok(w.GetWorkload(ctx, caller(access.Auditor), "agent-a"))(t)
	if got.UID != made.UID || got.Tags["team"] != "x" {
		t.Errorf("got %+v, want what was created", got)
	}

	w.clock.add(time.Minute)
	same := ok(w.UpdateWorkload(ctx, admin, "agent-a", nil))(t)
	if len(same.ReturnURLs) != 2 || !same.Updated.Equal(w.clock.now()) || !same.Created.Equal(made.Created) {
		t.Errorf("an update without a list: got %+v, want the list unchanged", same)
	}
	if got := ok(w.UpdateWorkload(ctx, admin, "agent-a", []string{"https://b.example.com"}))(t).ReturnURLs; len(got) != 1 {
		t.Errorf("an update: got %q", got)
	}
	ok(w.UpdateWorkload(ctx, admin, "agent-a", []string{}))(t)
	if got := ok(w.GetWorkload(ctx, admin, "agent-a"))(t); len(got.ReturnURLs) != 0 || got.UID != made.UID || got.Generation != 1 {
		t.Errorf("an update with an empty list: got %+v", got)
	}

	for _, c := range []access.Caller{caller(access.Agent, "*"), caller(access.ConsentApp, "*"), {}} {
		for _, name := range []string{"agent-a", "agent-x"} {
			wantCode(t, c.Name+" gets "+name, third(w.GetWorkload(ctx, c, name)), fault.Denied)
			wantCode(t, c.Name+" updates "+name, third(w.UpdateWorkload(ctx, c, name, nil)), fault.Denied)
			wantCode(t, c.Name+" deletes "+name, w.DeleteWorkload(ctx, c, name), fault.Denied)
			wantCode(t, c.Name+" creates "+name, third(w.CreateWorkload(ctx, c, identity.NewWorkload{Name: name})), fault.Denied)
		}
	}
	foreign := access.Caller{Account: other, Principal: "prn-x", Roles: []access.Role{access.Root}}
	wantCode(t, "another account", third(w.GetWorkload(ctx, foreign, "agent-a")), fault.NotFound)
	wantCode(t, "another account deletes", w.DeleteWorkload(ctx, foreign, "agent-a"), fault.NotFound)
	wantCode(t, "missing", third(w.UpdateWorkload(ctx, admin, "agent-x", nil)), fault.NotFound)

	for i := range 4 {
		w.workload(fmt.Sprintf("b-%d", i), nil)
	}
	var names []string
	for after := ""; ; {
		page, next, err := w.ListWorkloads(ctx, admin, after, 2)
		must(t, err)
		for _, p := range page {
			names = append(names, p.Name)
		}
		if after = next; next == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"agent-a", "b-0", "b-1", "b-2", "b-3"}, names); diff != "" {
		t.Errorf("pages of two (-want +got):\n%s", diff)
	}
}

func third(_ identity.Workload, err error) error { return err }

func TestWorkloads_ConcurrentChangesAllHappen(t *testing.T) {
	w := newWorld(t)
	w.workload("agent-a", nil)
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			_, err := w.UpdateWorkload(t.Context(), w.root, "agent-a", []string{"https://app.example.com/cb"})
			if err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if got := ok(w.db.Workload(t.Context(), account, "agent-a"))(t); got.Version != 3 {
		t.Errorf("got version %d, want 3 after two changes", got.Version)
	}
}

func TestReservedTags(t *testing.T) {
	for _, tags := range []map[string]string{
		{identity.TagAssurance: "verified"}, {identity.TagAssurance: "asserted"}, {identity.TagVault: "default"}, {"tabard": "x"}, {"x:tabard:y": ""}, nil,
	} {
		if err := identity.CheckTags(tags); err != nil {
			t.Errorf("%v: got %v, want it accepted", tags, err)
		}
	}
	for _, tags := range []map[string]string{
		{identity.TagAssurance: ""}, {identity.TagAssurance: "Asserted"}, {identity.TagAssurance: "asserted "}, {identity.TagVault: "other"}, {identity.TagVault: ""},
		{"tabard:": ""}, {"tabard:assurence": "asserted"}, {"Tabard:Assurance": "asserted"}, {"tabard:delivery": "inject"},
	} {
		wantCode(t, fmt.Sprint(tags), identity.CheckTags(tags), fault.Invalid)
	}
}

func TestC17_ReturnURLs(t *testing.T) {
	w := newWorld(t)
	w.workload("agent-a", nil)
	set := func(u string) error { return third(w.UpdateWorkload(t.Context(), w.root, "agent-a", []string{u})) }
	for _, u := range []string{
		"https://app.example.com", "https://app.example.com/cb?x=1&y=%20", "https://app.example.com:8443/a/b", "http://localhost:3000/cb", "http://localhost", "http://127.0.0.1:3000/cb",
		"http://127.9.8.7/", "http://[::1]:8080/cb", "myapp:/cb", "myapp://cb/x", "myapp:cb", "HTTPS://app.example.com/", "https://[2001:db8::1]/cb",
	} {
		if err := set(u); err != nil {
			t.Errorf("%s: got %v, want it accepted", u, err)
		}
	}
	for _, u := range []string{
		"javascript:alert(1)", "JavaScript:alert(1)", "java\tscript:alert(1)", " javascript:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "blob:https://x", "about:blank",
		"http://app.example.com/cb", "http://localhost.evil.com", "http://127.0.0.1.evil.com", "http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/", "http://0.0.0.0/",
		"http://[::ffff:127.0.0.1]/", "http://[::]/", "http://localhost@evil.com/", "http://evil.com#@localhost", "https://user@app.example.com", "https://user:pw@app.example.com/", "https://@app.example.com",
		"https://good.example.com\\@evil.com", "https://app.example.com/#frag", "https://app.example.com/#", "https:///cb", "https://", "https:cb", "https:/cb", "//app.example.com/cb", "/cb", "cb", "",
		"https://app.example.com/a b", "https://app.example.com/\r\nX: y", "https://app.example.com/\x00", "https://app.example.com/\x7f", "https://ex\u00e4mple.com", "https://ex%61mple.com/", "https://app.example.com:/",
		"https://" + strings.Repeat("a", 2048), "ftp://x/", "ws://localhost/", "intent://x#Intent;end", "https://[::1", "http://localhost:x/", "myapp://user@x", ":x",
	} {
		if err := set(u); fault.CodeOf(err) != fault.Invalid || fault.Public(err).Field != "allowedResourceOauth2ReturnUrls" {
			t.Errorf("%q: got %v, want Invalid naming the member", u, err)
		}
	}
}

func FuzzC17_ReturnURLs(f *testing.F) {
	w := newWorld(f)
	w.workload("agent-a", nil)
	for _, u := range []string{"https://a.b/c", "javascript:x", "http://localhost:1", "https://a@b", "https://a#b"} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, u string) {
		got, err := w.UpdateWorkload(t.Context(), w.root, "agent-a", []string{u})
		if err != nil {
			return
		}
		lower := strings.ToLower(u)
		if got.ReturnURLs[0] != u || strings.ContainsAny(u, "#\\ \t\r\n\x00") || strings.HasPrefix(lower, "javascript:") || strings.HasPrefix(lower, "data:") {
			t.Fatalf("%q was accepted as %q", u, got.ReturnURLs[0])
		}
	})
}
