package oauth

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/keyring"
)

// Inspect implements broker.Inspector. It fetches the document anew, and what it fetched serves the calls that follow.
func (c *Client) Inspect(ctx context.Context, p broker.Provider) (broker.Metadata, error) {
	if _, err := c.parseURL(p.DiscoveryURL); err != nil {
		return broker.Metadata{}, fault.Wrap(fault.Invalid, err, "the discovery URL cannot be used: %s", err)
	}
	o, err := c.of(p.Account)
	if err != nil {
		return broker.Metadata{}, err
	}
	body, err := o.get(ctx, "the provider's metadata", p.DiscoveryURL)
	if err != nil {
		return broker.Metadata{}, err
	}
	d, err := parseDocument(body)
	if err != nil {
		return broker.Metadata{}, fault.Wrap(fault.Invalid, err, "the provider's metadata cannot be used: the answer is not a metadata document")
	}
	o.metadata.put(p.DiscoveryURL, d)
	m := broker.Metadata{Issuer: d.Issuer, Expected: issuersOf(p.DiscoveryURL), PKCE: d.PKCEMethods, IssInResponse: d.IssInResponse}
	// What only this looks at is read apart: written in a strange way, it must not make the provider unusable.
	members, err := parseObject(body)
	if err == nil && json.Unmarshal(members["token_endpoint_auth_methods_supported"], &m.AuthMethods) != nil {
		m.AuthMethods = nil
	}
	return m, nil
}

// IssuerMetadata implements keyring.MetadataSource.
func (c *Client) IssuerMetadata(ctx context.Context, account access.Account, issuer string, anew bool) (keyring.Metadata, error) {
	o, err := c.of(account)
	if err != nil {
		return keyring.Metadata{}, err
	}
	address := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	if _, err := c.parseURL(address); anew && err == nil {
		d, err := o.fetchMetadata(ctx, address)
		if err != nil {
			return keyring.Metadata{}, err
		}
		o.metadata.put(address, d)
	}
	d, err := o.discover(ctx, address)
	if err == nil && d.Issuer != issuer {
		err = fault.New(fault.Invalid, "the metadata of the issuer cannot be used: it names another issuer")
	}
	if err != nil {
		return keyring.Metadata{}, err
	}
	return keyring.Metadata{Authorization: d.Authorization, Token: d.Token, UserInfo: d.UserInfo, JWKS: d.JWKS}, nil
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
