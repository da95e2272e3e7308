package e2e_test

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// goCommand runs the go command at the root of the module and returns its output.
func goCommand(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = peer.Root(t)
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%.2000s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return out
}

func TestL01_ModulesAreWhatGoSumSays(t *testing.T) {
	if out := goCommand(t, "mod", "verify"); !bytes.Contains(out, []byte("all modules verified")) {
		t.Errorf("go mod verify: %s", out)
	}
}

// A replace directive or a vendor folder puts code in the build that go.sum does not describe.
func TestL01_NothingBesideGoSum(t *testing.T) {
	var mod struct{ Replace, Exclude []any }
	if err := json.Unmarshal(goCommand(t, "mod", "edit", "-json"), &mod); err != nil {
		t.Fatal(err)
	}
	if len(mod.Replace) > 0 {
		t.Errorf("go.mod has %d replace directives, want none", len(mod.Replace))
	}
	root := peer.Root(t)
	if _, err := os.Stat(filepath.Join(root, "vendor")); err == nil {
		t.Error("there is a vendor folder")
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(makefile, []byte("\nexport GOFLAGS := -mod=readonly\n")) {
		t.Error("the Makefile does not set GOFLAGS to -mod=readonly")
	}
	if latest := regexp.MustCompile(`@latest|@master|@main\b`).Find(makefile); latest != nil {
		t.Errorf("the Makefile runs a tool at a moving version: %s", latest)
	}
}

// allowed are the licences that code in our binaries may have.
var allowed = []string{"Apache-2.0", "BSD", "CC0-1.0", "ISC", "MIT", "Public domain", "Unlicense"}

// reviewed names the licence files that a person read because the classifier may not pass them. The version is part of
// the name, so that an upgrade asks for another look.
var reviewed = []string{
	"modernc.org/memory@v1.12.1/LICENSE-LOGO",         // the origin of a picture, which no binary has
	"modernc.org/sqlite@v1.61.1/LICENSE-3RD-PARTY.md", // what is linked is MIT, BSD and public domain; MPL-2.0 is in a module of its graph that nothing compiles
}

func TestL10_EveryModuleHasAnAllowedLicence(t *testing.T) {
	type module struct {
		Path, Version, Dir string
		Main               bool
	}
	modules := map[string]module{}
	// All that any command, package or test of ours compiles.
	dec := json.NewDecoder(bytes.NewReader(goCommand(t, "list", "-deps", "-test", "-json=Module", "./...")))
	for {
		var p struct{ Module *module }
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Module != nil && !p.Module.Main {
			modules[p.Module.Path] = *p.Module
		}
	}
	if len(modules) < 5 {
		t.Fatalf("only %d modules found; the scan is broken", len(modules))
	}
	for path, m := range modules {
		licences := licencesIn(t, m.Dir)
		if len(licences) == 0 {
			t.Errorf("%s %s: no licence recognized in %s", path, m.Version, m.Dir)
		}
		for file, licence := range licences {
			name := path + "@" + m.Version + "/" + file
			if !slices.Contains(allowed, licence) && !slices.Contains(reviewed, name) {
				t.Errorf("%s is %s", name, licence)
			}
		}
	}
}

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense)([-._].*)?$`)

// licencesIn classifies the licence files at the top of dir, by file name.
func licencesIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, e := range entries {
		if e.IsDir() || !licenceFile.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = classify(string(text))
	}
	return found
}

// markers are phrases that only one licence has. The first that occurs decides, so those that forbid come first; MPL
// precedes them because its text mentions the GPL.
var markers = []struct{ licence, phrase string }{
	{"MPL-2.0", "mozilla public license version 2.0"},
	{"AGPL", "gnu affero general public license"},
	{"LGPL", "gnu lesser general public license"},
	{"GPL", "gnu general public license"},
	{"SSPL", "server side public license"},
	{"BUSL", "business source license"},
	{"Elastic", "elastic license"},
	{"Commons Clause", "commons clause"},
	{"Apache-2.0", "apache license version 2.0"},
	{"BSD", "redistribution and use in source and binary forms, with or without modification, are permitted"},
	{"MIT", "permission is hereby granted, free of charge, to any person obtaining a copy"},
	{"ISC", "permission to use, copy, modify, and/or distribute this software for any purpose with or without fee"},
	{"ISC", "permission to use, copy, modify, and distribute this software for any purpose with or without fee"},
	{"Unlicense", "this is free and unencumbered software released into the public domain"},
	{"Public domain", "has been dedicated to the public domain by the authors"},
	{"CC0-1.0", "cc0 1.0 universal"},
}

func classify(text string) string {
	plain := strings.ReplaceAll(strings.Join(strings.Fields(strings.ToLower(text)), " "), "license, version", "license version")
	for _, m := range markers {
		if strings.Contains(plain, m.phrase) {
			return m.licence
		}
	}
	return "unknown"
}

func TestL10_Classifier(t *testing.T) {
	for text, want := range map[string]string{
		"GNU AFFERO GENERAL\n   PUBLIC LICENSE\nVersion 3":                                              "AGPL",
		"Apache License\n  Version 2.0, January 2004\n with parts under the GNU General Public License": "GPL",
		"Apache License, Version 2.0":                                                                   "Apache-2.0",
		"Mozilla Public License Version 2.0 … “Secondary License” means the GNU General Public License": "MPL-2.0",
		"Permission is hereby granted, free of charge, to any person obtaining a\ncopy":                 "MIT",
		"MIT": "unknown", // a bare name is no grant
		"All rights reserved. Business Source License 1.1": "BUSL",
		"": "unknown",
	} {
		if got := classify(text); got != want {
			t.Errorf("classify(%q) = %s, want %s", text, got, want)
		}
	}
	if got := licencesIn(t, peer.Root(t))["LICENSE"]; got != "Apache-2.0" {
		t.Errorf("our own LICENSE is %s", got)
	}
}

// Code brought in by hand carries its licence in its first lines, where no module list shows it.
func TestL10_NoForeignHeaders(t *testing.T) {
	header := regexp.MustCompile(`(?i)SPDX-License-Identifier:\s*(A?GPL|LGPL|SSPL|BUSL)|under the terms of the GNU|GNU (Affero |Lesser )?General Public License as published`)
	root, seen := peer.Root(t), 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", "node_modules", ".venv", "tabard-data", "bin"}, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || filepath.Base(path) == "supply_test.go" {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		top, err := io.ReadAll(io.LimitReader(f, 8<<10))
		if err != nil {
			return err
		}
		seen++
		if m := header.Find(top); m != nil {
			t.Errorf("%s: %s", path, m)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 20 {
		t.Fatalf("only %d files seen; the scan is broken", seen)
	}
}
