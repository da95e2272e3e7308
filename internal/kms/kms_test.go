package kms_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/kms"
)

const context = "arn:aws:bedrock-agentcore:us-east-1:000000000000:token-vault/default"

// create makes a key file and returns its path.
func create(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys", "key")
	if err := kms.CreateFile(path); err != nil {
		t.Fatalf("CreateFile: %v", err)
	}
	return path
}

func open(t *testing.T, path string) *kms.File {
	t.Helper()
	w, err := kms.Open("file:" + path)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return w.(*kms.File)
}

func TestFile_RoundTrip(t *testing.T) {
	path := create(t)
	w := open(t, path)
	key := bytes.Repeat([]byte{7}, 32)
	wrapped, err := w.Wrap(t.Context(), []byte(context), key)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(wrapped, key) {
		t.Error("the wrapped key holds the key in the clear")
	}
	// Another process, and the file under another name.
	moved := path + "-moved"
	if err := os.Rename(path, moved); err != nil {
		t.Fatal(err)
	}
	other := open(t, moved)
	if other.URI() != w.URI() {
		t.Errorf("URI changed from %s to %s with the path", w.URI(), other.URI())
	}
	got, err := other.Unwrap(t.Context(), []byte(context), wrapped)
	if err != nil || !bytes.Equal(got, key) {
		t.Errorf("Unwrap = %x, %v; want %x", got, err, key)
	}
}

func TestFile_Unwrap_DeniesEverythingElse(t *testing.T) {
	w := open(t, create(t))
	key := bytes.Repeat([]byte{7}, 32)
	wrapped, err := w.Wrap(t.Context(), []byte(context), key)
	if err != nil {
		t.Fatal(err)
	}
	for i := range wrapped {
		changed := bytes.Clone(wrapped)
		changed[i] ^= 1
		if got, err := w.Unwrap(t.Context(), []byte(context), changed); !errors.Is(err, fault.Denied) || got != nil {
			t.Errorf("byte %d changed: Unwrap = %x, %v; want denied", i, got, err)
		}
		if got, err := w.Unwrap(t.Context(), []byte(context), wrapped[:i]); !errors.Is(err, fault.Denied) || got != nil {
			t.Errorf("cut to %d bytes: Unwrap = %x, %v; want denied", i, got, err)
		}
	}
	for _, other := range []string{"", context + "2", strings.Replace(context, "000000000000", "111111111111", 1)} {
		if _, err := w.Unwrap(t.Context(), []byte(other), wrapped); !errors.Is(err, fault.Denied) {
			t.Errorf("context %q: got %v, want denied", other, err)
		}
	}
}

func TestFile_WrongKeySaysSo(t *testing.T) {
	first, second := open(t, create(t)), open(t, create(t))
	wrapped, err := first.Wrap(t.Context(), []byte(context), make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	_, err = second.Unwrap(t.Context(), []byte(context), wrapped)
	if !errors.Is(err, fault.Denied) || !strings.Contains(err.Error(), "not the one that wrapped this vault") ||
		!strings.Contains(err.Error(), strings.TrimPrefix(first.URI(), "file:")) {
		t.Errorf("got %v; want denied, naming the key that is needed", err)
	}
}

func TestFile_TakenAway(t *testing.T) {
	for name, take := range map[string]func(path string) error{
		"removed":  os.Remove,
		"replaced": func(path string) error { return errors.Join(os.Remove(path), kms.CreateFile(path)) },
		"readable": func(path string) error { return os.Chmod(path, 0o640) },
		"emptied":  func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			path := create(t)
			w := open(t, path)
			wrapped, err := w.Wrap(t.Context(), []byte(context), make([]byte, 32))
			if err != nil {
				t.Fatal(err)
			}
			if err := take(path); err != nil {
				t.Fatal(err)
			}
			_, unwrap := w.Unwrap(t.Context(), []byte(context), wrapped)
			_, wrap := w.Wrap(t.Context(), []byte(context), make([]byte, 32))
			for _, err := range []error{unwrap, wrap} {
				if fault.CodeOf(err) != fault.Denied || errors.Is(err, fault.NotFound) || errors.Is(err, fault.Invalid) {
					t.Errorf("got %v, want denied and no other code behind it", err)
				}
			}
		})
	}
}

func TestOpen_Refuses(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if err := kms.CreateFile(good); err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, content []byte, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, content, 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	secretPart := strings.TrimSpace(strings.TrimPrefix(string(line), "tabard-key-1:"))
	for name, c := range map[string]struct {
		uri  string
		code fault.Code
		says string
	}{
		"no scheme":      {good, fault.Invalid, "scheme"},
		"other scheme":   {"aws-kms://x", fault.Invalid, "scheme"},
		"no path":        {"file:", fault.Invalid, "path"},
		"host":           {"file://host/key", fault.Invalid, "path"},
		"absent":         {"file:" + dir + "/absent", fault.NotFound, "does not exist"},
		"directory":      {"file:" + dir, fault.Invalid, "regular"},
		"group may read": {write("group", line, 0o640), fault.Invalid, "chmod 600"},
		"others may":     {write("others", line, 0o604), fault.Invalid, "chmod 600"},
		"empty":          {write("empty", nil, 0o600), fault.Invalid, "one line"},
		"no magic":       {write("magic", []byte(secretPart), 0o600), fault.Invalid, "one line"},
		"later magic":    {write("later", []byte("tabard-key-2:"+secretPart), 0o600), fault.Invalid, "one line"},
		"two lines":      {write("two", append(bytes.Clone(line), line...), 0o600), fault.Invalid, "one line"},
		"short":          {write("short", []byte("tabard-key-1:AAAA\n"), 0o600), fault.Invalid, "one line"},
		"loose bits":     {write("loose", []byte("tabard-key-1:"+looseBits(secretPart)), 0o600), fault.Invalid, "one line"},
		"broken":         {write("broken", []byte("tabard-key-1:"+secretPart[:20]+"\n"+secretPart[20:]), 0o600), fault.Invalid, "one line"},
		"space":          {write("space", append([]byte(" "), line...), 0o600), fault.Invalid, "one line"},
		"long":           {write("long", append(bytes.Clone(line), make([]byte, 5000)...), 0o600), fault.Invalid, "one line"},
	} {
		w, err := kms.Open(c.uri)
		if w != nil || fault.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: Open = %v, %v; want %s with %q", name, w, err, c.code, c.says)
		}
		if err != nil && strings.Contains(err.Error(), secretPart[:12]) {
			t.Errorf("%s: the error quotes the key", name)
		}
	}
}

// looseBits sets one of the two bits at the end of the base64 of 32 bytes that stand for nothing.
func looseBits(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	last := strings.IndexByte(alphabet, s[42])
	return s[:42] + alphabet[last+1:last+2] + "="
}

func TestCreateFile(t *testing.T) {
	path := create(t)
	for name, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): fs.ModeDir | 0o700} {
		info, err := os.Stat(name)
		if err != nil || info.Mode() != want {
			t.Errorf("mode of %s = %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := kms.CreateFile(path); !errors.Is(err, fault.Conflict) {
		t.Errorf("second CreateFile: got %v, want conflict", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Error("the second CreateFile changed the file")
	}
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(names) != 1 {
		t.Errorf("the directory holds %v, %v; want the key alone", names, err)
	}
	dangling := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/nowhere", dangling); err != nil {
		t.Fatal(err)
	}
	if err := kms.CreateFile(dangling); !errors.Is(err, fault.Conflict) {
		t.Errorf("over a dangling link: got %v, want conflict", err)
	}
}

func TestCreateFile_Race(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	errs := make([]error, 8)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = kms.CreateFile(path) })
	}
	all.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, fault.Conflict):
			t.Errorf("got %v, want conflict", err)
		}
	}
	if won != 1 {
		t.Errorf("%d made the file, want 1", won)
	}
	open(t, path)
}

// TestFile_Vectors opens what an earlier version wrapped. The file is never to be changed, only added to.
func TestFile_Vectors(t *testing.T) {
	content, err := os.ReadFile("testdata/vectors/file-1.json")
	if err != nil {
		t.Fatal(err)
	}
	var vector struct{ KeyFile, URI, Context, Key, Wrapped string }
	if err := json.Unmarshal(content, &vector); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(vector.KeyFile), 0o600); err != nil {
		t.Fatal(err)
	}
	w := open(t, path)
	if w.URI() != vector.URI {
		t.Errorf("URI = %s, want %s", w.URI(), vector.URI)
	}
	wrapped, err := hex.DecodeString(vector.Wrapped)
	if err != nil {
		t.Fatal(err)
	}
	key, err := w.Unwrap(t.Context(), []byte(vector.Context), wrapped)
	if err != nil || hex.EncodeToString(key) != vector.Key {
		t.Errorf("Unwrap = %x, %v; want %s", key, err, vector.Key)
	}
}
