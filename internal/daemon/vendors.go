package daemon

import (
	"fmt"
	"os"

	"github.com/tabard-id/tabard/internal/oauth"
)

// catalogue is the built-in one, and with it the vendors of the operator's file. A file that cannot be read whole stops
// the start: a provider of a vendor that is missing would fail later, at its users.
func (c Config) catalogue() (*oauth.Catalogue, error) {
	builtIn, err := oauth.NewCatalogue()
	if err != nil || c.VendorsFile == "" {
		return builtIn, err
	}
	data, err := os.ReadFile(c.VendorsFile)
	if err != nil {
		return nil, fmt.Errorf("vendors-file: %w", err)
	}
	all, err := builtIn.WithOperators(data)
	if err != nil {
		return nil, fmt.Errorf("vendors-file %s: %w", c.VendorsFile, err)
	}
	return all, nil
}
