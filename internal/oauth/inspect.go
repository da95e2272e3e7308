package oauth

import (
	"context"
	"encoding/json"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
)

// Inspect implements broker.Inspector. It fetches the document anew, and what it fetched serves the calls that follow.
func (c *Client) Inspect(ctx context.Context, p broker.Provider) (broker.Metadata, error) {
	if _, err := c.parseURL(p.DiscoveryURL); err != nil {
		return broker.Metadata{}, fault.Wrap(fault.Invalid, err, "the discovery URL cannot be used: %s", err)
	}
	body, err := c.get(ctx, "the provider's metadata", p.DiscoveryURL)
	if err != nil {
		return broker.Metadata{}, err
	}
	d, err := parseDocument(body)
	if err != nil {
		return broker.Metadata{}, fault.Wrap(fault.Invalid, err, "the provider's metadata cannot be used: the answer is not a metadata document")
	}
	c.metadata.put(p.DiscoveryURL, d)
	m := broker.Metadata{Issuer: d.Issuer, Expected: issuersOf(p.DiscoveryURL), PKCE: d.PKCEMethods, IssInResponse: d.IssInResponse}
	// What only this looks at is read apart: written in a strange way, it must not make the provider unusable.
	members, err := parseObject(body)
	if err == nil && json.Unmarshal(members["token_endpoint_auth_methods_supported"], &m.AuthMethods) != nil {
		m.AuthMethods = nil
	}
	return m, nil
}

// put stores a document that was fetched now.
func (m *metadataCache) put(url string, doc document) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.entries[url]; !known && len(m.entries) >= metadataBounds {
		m.dropOldestLocked()
	}
	m.entries[url] = metadataEntry{doc: doc, fetched: m.now()}
}
