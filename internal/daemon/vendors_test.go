package daemon_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/daemon"
)

// The file of an operator's vendors is read whole or stops the start.
func TestL03_VendorsFileStopsTheStart(t *testing.T) {
	for text, want := range map[string]string{
		`[{"name":"GoogleOauth2","config":"includedOauth2ProviderConfig","tenant":true,"authMethod":"none","verified":"real"}]`: "built-in",
		`[{"name":"AcmeOauth2","exec":"/bin/sh"}]`: "unknown field",
		`not JSON`: "catalogue",
	} {
		path := filepath.Join(t.TempDir(), "vendors.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := daemon.New(t.Context(), daemon.Config{Addr: "127.0.0.1:0", DataDir: filepath.Join(t.TempDir(), "data"), VendorsFile: path})
		if err == nil {
			t.Errorf("%s: the server started", text)
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want the file's name and %q", text, err, want)
		}
	}
}
