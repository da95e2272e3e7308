package signing

import (
	"context"
	"encoding/json"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
)

// replacing is the member of a sealed private JWK that says which keys were revoked for it. It is sealed with the
// key: the column that says so in clear is trusted by nobody, or whoever can write to the database would declare keys
// revoked.
const replacing = "tabard_replaces"

// withReplaced is a private JWK that says which keys it replaces.
func withReplaced(private []byte, replaces map[string]int64) ([]byte, error) {
	if len(replaces) == 0 {
		return private, nil
	}
	var members map[string]json.RawMessage
	err := json.Unmarshal(private, &members)
	if err == nil {
		members[replacing], err = json.Marshal(replaces)
	}
	var doc []byte
	if err == nil {
		doc, err = json.Marshal(members)
	}
	clear(private)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "a signing key cannot be written")
	}
	return doc, nil
}

// replacedOf reads what withReplaced wrote.
func replacedOf(private []byte) (map[string]int64, error) {
	var doc struct {
		Replaces map[string]int64 `json:"tabard_replaces"`
	}
	if err := json.Unmarshal(private, &doc); err != nil {
		return nil, fault.New(fault.Internal, "a signing key cannot be read") // the library's error quotes what it read
	}
	return doc.Replaces, nil
}

// replaced is what the key that replaces every key of the purpose Audit says: their ids, and those of the keys that
// were revoked before.
func (s *Service) replaced(ctx context.Context, now time.Time) (map[string]int64, error) {
	rows, err := s.store.SigningKeys(ctx, Audit, 0)
	if err != nil {
		return nil, err
	}
	ids := make(map[string]int64, len(rows))
	for _, r := range rows {
		at := now
		if !r.live() {
			at = r.Revoked
		}
		ids[r.ID] = at.UnixMilli()
	}
	return ids, nil
}

// RevokedStatementKeys returns the ids of the keys of the purpose Audit that were revoked, and when, as the keys that
// replaced them say. What they signed proves nothing.
func (s *Service) RevokedStatementKeys(ctx context.Context) (map[string]time.Time, error) {
	rows, err := s.store.SigningKeys(ctx, Audit, 0)
	if err != nil {
		return nil, err
	}
	revoked := map[string]time.Time{}
	for _, r := range rows {
		if !r.live() {
			continue
		}
		_, replaces, err := s.openWhole(ctx, r)
		if err != nil {
			return nil, err
		}
		for id, at := range replaces {
			revoked[id] = time.UnixMilli(at).UTC()
		}
	}
	return revoked, nil
}
