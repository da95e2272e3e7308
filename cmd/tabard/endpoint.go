package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/internal/daemon"
)

// location is where a server answers and which region it verifies.
type location struct {
	url         string
	region      string
	fromDataDir bool // read from the data directory of a server on this machine
}

// finder finds the server: --endpoint, then --data-dir, then the variables of AWS's SDKs, then ./tabard-data.
type finder struct {
	endpoint          string
	dataDir           string
	dataDirGiven      bool // by the flag
	dataDirGuessed    bool // neither the flag nor the environment names it
	ignoreEnvironment bool
	env               func(string) string
	cmd               *cobra.Command
}

// addFlags adds the flags that name the server to cmd and all commands below it.
func (f *finder) addFlags(cmd *cobra.Command, t terminal) {
	f.cmd, f.env = cmd, t.env
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.endpoint, "endpoint", "", "`URL` of the server")
	flags.StringVar(&f.dataDir, "data-dir", "", "data `directory` of a server on this machine (default TABARD_DATA_DIR or "+daemon.DefaultDataDir+")")
}

func (f *finder) find() (location, error) {
	f.dataDirGiven = f.dataDir != ""
	if !f.dataDirGiven {
		if f.dataDir = f.env("TABARD_DATA_DIR"); f.dataDir == "" {
			f.dataDir, f.dataDirGuessed = daemon.DefaultDataDir, true
		}
	}
	if f.endpoint != "" {
		return f.at(f.endpoint, "--endpoint")
	}
	if !f.dataDirGiven && !f.ignoreEnvironment {
		for _, name := range []string{"AWS_ENDPOINT_URL_BEDROCK_AGENTCORE_CONTROL", "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE"} {
			if v := f.env(name); v != "" {
				return f.at(v, name)
			}
		}
	}
	return f.inDataDir()
}

func (f *finder) at(raw, source string) (location, error) {
	if err := checkURL(raw); err != nil {
		return location{}, usage("for example http://127.0.0.1:8180", "%s %v", source, err)
	}
	where := location{url: raw, region: f.env("AWS_REGION")}
	if where.region == "" {
		where.region = f.env("AWS_DEFAULT_REGION")
	}
	if where.region == "" {
		where.region = daemon.DefaultRegion
	}
	// The same server on this machine: its data directory knows its region and has its key.
	if local, err := f.inDataDir(); err == nil && (local.url == raw || f.dataDirGiven) {
		where.region, where.fromDataDir = local.region, true
	}
	return where, nil
}

func (f *finder) inDataDir() (location, error) {
	read := daemon.ReadLine
	if f.dataDirGuessed { // the folder that the command is run in may be anybody's
		dir, err := daemon.OpenOwned(f.dataDir)
		if err == nil {
			defer dir.Close()
			read = func(path string) (string, error) {
				doc, err := dir.ReadFile(filepath.Base(path))
				return strings.TrimSpace(string(doc)), err
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return location{}, &failure{exit: exitDenied, err: err, msg: err.Error() + ", so it does not say which server to use", hints: []string{
				"name the server with --endpoint URL, or the directory with --data-dir " + f.dataDir + " if you trust its owner"}}
		}
	}
	at, err := read(daemon.EndpointPath(f.dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return location{}, &failure{exit: exitUnavailable, err: err, msg: fmt.Sprintf("no server has run with the data directory %s", f.dataDir), hints: []string{
			"start one with tabard serve, or name one with --endpoint URL or --data-dir DIR"}}
	}
	if err != nil {
		return location{}, err
	}
	if err := checkURL(at); err != nil {
		return location{}, fmt.Errorf("%s: %w", daemon.EndpointPath(f.dataDir), err)
	}
	region, err := read(daemon.RegionPath(f.dataDir))
	if err != nil {
		return location{}, err
	}
	return location{url: at, region: region, fromDataDir: true}, nil
}

// checkURL accepts scheme://host[:port] and nothing more: it is printed for a shell to execute, and paths are ours.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return fmt.Errorf("must be http(s)://host[:port] and nothing more")
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
