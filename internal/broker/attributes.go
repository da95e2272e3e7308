package broker

import (
	"context"
	"encoding/json"
	"maps"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// sealAttributes seals what a vendor answered beside the token: it names teams and addresses of a user, so it is kept
// as the token is.
func (b *Broker) sealAttributes(ctx context.Context, c Connection, attributes map[string]string) (vault.Sealed, error) {
	if len(attributes) == 0 {
		return nil, nil
	}
	doc, err := json.Marshal(attributes)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the vendor's attributes could not be written")
	}
	return b.vault.Seal(ctx, c.ref("extra"), secret.New(string(doc)))
}

// openAttributes returns what sealAttributes sealed, nil where there is nothing.
func (b *Broker) openAttributes(ctx context.Context, c Connection) (map[string]string, error) {
	if len(c.Attributes) == 0 {
		return nil, nil
	}
	doc, err := b.vault.Open(ctx, c.ref("extra"), c.Attributes)
	if err != nil {
		return nil, err
	}
	var attributes map[string]string
	if err := json.Unmarshal([]byte(doc.Expose()), &attributes); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the attributes of connection %s are damaged", c.ID)
	}
	return attributes, nil
}

// carryOver adds to the attributes of a refresh what only the first answer had: vendors do not repeat it.
func carryOver(old, now map[string]string) map[string]string {
	if len(old) == 0 {
		return now
	}
	all := maps.Clone(old)
	maps.Copy(all, now)
	return all
}
