package revocation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/tabard-id/tabard/internal/broker"
)

// ReceiptType is the type (typ) of a receipt's JWS.
const ReceiptType = "tabard-revocation-receipt+jwt"

const (
	receiptPage  = 500
	receiptItems = 1000 // connections that a receipt names; of all of them it has the digest
)

// receiptItem is a connection in a receipt, and one line of what its digest is of.
type receiptItem struct {
	Connection string                 `json:"connection"`
	Workload   string                 `json:"workload"`
	User       string                 `json:"user_ref,omitempty"`
	Provider   string                 `json:"provider"`
	Upstream   broker.RevocationState `json:"upstream"`
	Detail     string                 `json:"detail,omitempty"`
}

// receipt signs what has died, what could not be revoked at its provider and why, who asked and when. Connections that
// are not revoked at their provider are named first. The digest is SHA-256 over the lines of all of them (JSON, a line
// feed behind each), in the order of their ids, as GetRevocation lists them.
func (s *Service) receipt(ctx context.Context, j Job) (string, error) {
	if s.Signer == nil {
		return "", nil
	}
	var named, fine []receiptItem
	digest, n := sha256.New(), 0
	counts := map[broker.RevocationState]int{}
	for after := ""; ; {
		items, err := s.Store.Items(ctx, j.Account, j.ID, false, after, receiptPage)
		if err != nil {
			return "", err
		}
		for _, i := range items {
			after, n = i.Connection, n+1
			counts[i.Upstream]++
			one := receiptItem{i.Connection, i.Workload, i.User, i.Provider, i.Upstream, i.Detail}
			line, err := json.Marshal(one)
			if err != nil {
				return "", err
			}
			digest.Write(append(line, '\n'))
			switch {
			case i.Upstream != broker.RevocationDone && len(named) < receiptItems:
				named = append(named, one)
			case i.Upstream == broker.RevocationDone && len(fine) < receiptItems:
				fine = append(fine, one)
			}
		}
		if len(items) < receiptPage {
			break
		}
	}
	named = append(named, fine[:min(len(fine), receiptItems-len(named))]...)
	return s.Signer.State(ctx, ReceiptType, s.claims(j, named, n, counts, hex.EncodeToString(digest.Sum(nil))))
}

func (s *Service) claims(j Job, named []receiptItem, n int, counts map[broker.RevocationState]int, digest string) map[string]any {
	selection := map[string]any{}
	for name, value := range map[string]string{"workload": j.Workload, "user_ref": j.User, "provider": j.Provider} {
		if value != "" {
			selection[name] = value
		}
	}
	if j.Whole {
		selection["whole_account"] = true
	}
	upstream := map[string]int{}
	for state, count := range counts {
		upstream[string(state)] = count
	}
	if named == nil {
		named = []receiptItem{}
	}
	c := map[string]any{
		"jti": j.ID, "iat": s.Now().Unix(), "account": string(j.Account), "selection": selection, "reason": j.Reason,
		"requested_by": map[string]string{"principal": string(j.Principal), "name": j.Name, "access_key": j.AccessKey},
		"requested_at": j.Created.Unix(), "final": j.Phase == Done, "workload_access_tokens_ended": j.tokens(),
		"delegations_ended": j.Delegations, "user_erased": j.Erase, "connections_ended": n, "upstream_asked": j.Upstream,
		"upstream": upstream, "connections": named, "connections_not_named": n - len(named), "connections_sha256": digest,
	}
	if !j.Finished.IsZero() {
		c["finished_at"] = j.Finished.Unix()
	}
	return c
}
