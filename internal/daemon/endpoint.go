package daemon

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Files below the data directory that tell the commands on this machine where the server answers and which region it
// verifies. They stay after a stop: the next start replaces them.
const (
	endpointFile = "endpoint"
	regionFile   = "region"
)

// EndpointPath returns where the server of a data directory writes its URL, as one line.
func EndpointPath(dataDir string) string { return filepath.Join(dataDir, endpointFile) }

// RegionPath returns where the server of a data directory writes its region, as one line.
func RegionPath(dataDir string) string { return filepath.Join(dataDir, regionFile) }

// writeEndpoint tells the commands on this machine where the server answers. Each file is replaced whole.
func (s *Server) writeEndpoint() error {
	dir := s.config.DataDir
	return errors.Join(
		writeNew(RegionPath(dir), []byte(s.config.Region+"\n")),
		writeNew(EndpointPath(dir), []byte(s.localURL()+"\n")),
	)
}

// localURL is the URL for commands on this machine: the listener's own, except where TLS is spoken, because only the
// public URL has the certificate's name. An address that means all of them is reached by loopback.
func (s *Server) localURL() string {
	if s.config.TLSCert != "" {
		return s.config.PublicURL
	}
	host, port, err := net.SplitHostPort(s.listener.Addr().String())
	if ip := net.ParseIP(host); err == nil && ip.IsUnspecified() {
		return "http://" + net.JoinHostPort("127.0.0.1", port)
	}
	return s.URL()
}

// ReadLine reads a file of one line, such as EndpointPath's. A file that does not exist is an fs.ErrNotExist.
func ReadLine(path string) (string, error) {
	doc, err := os.ReadFile(path)
	return strings.TrimSpace(string(doc)), err
}
