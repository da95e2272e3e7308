package oauth

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/broker"
)

// recipe is broker.RevokeRecipe as data.
type recipe struct {
	Method     string            `json:"method"`
	Client     broker.AuthMethod `json:"client"`
	Token      string            `json:"token"`
	Bearer     bool              `json:"bearer"`
	Member     string            `json:"member"`
	JSON       bool              `json:"json"`
	OKMember   string            `json:"okMember"`
	DeadStatus int               `json:"deadStatus"`
	DeadMember string            `json:"deadMember"`
	Dead       []string          `json:"dead"`
}

// clientMark stands in a revocation's address for the provider's client id, as a part of the path.
const clientMark = "{client_id}"

// checkRevocation holds the address to the token endpoint's host or, in full, to the hosts that the entry lists: it
// gets a token and may get the client secret (threats E18, L03).
func (r row) checkRevocation() error {
	if regexp.MustCompile(`^([A-Za-z0-9_-]+/?)*$`).MatchString(r.Revocation) {
		switch {
		case len(r.Hosts) > 0:
			return errors.New("hosts: revocation is on none of them")
		case r.Revocation == "" && !r.Revoke.zero():
			return errors.New("revoke without revocation")
		}
		return nil
	}
	if !regexp.MustCompile(`^https://[a-z0-9.-]+(/(\{client_id\}|[A-Za-z0-9_-][A-Za-z0-9._-]*))+$`).MatchString(r.Revocation) {
		return fmt.Errorf("revocation %q: it is a path relative to the token endpoint, or an https address without port and query", r.Revocation)
	}
	u, err := new(Client).parseURL(strings.ReplaceAll(r.Revocation, clientMark, "x"))
	switch {
	case err != nil:
		return fmt.Errorf("revocation %q: %w", r.Revocation, err)
	case r.TokenEndpoint == "":
		return fmt.Errorf("revocation %q: with endpoints that are not fixed it is relative to the token endpoint", r.Revocation)
	case !slices.Contains(r.Hosts, u.Host):
		return fmt.Errorf("revocation %q: its host is not one of hosts", r.Revocation)
	case len(r.Hosts) > 1:
		return errors.New("hosts: revocation is on one of them only")
	}
	return nil
}

func (r recipe) zero() bool {
	return r.Method == "" && r.Client == "" && r.Token == "" && !r.Bearer && r.Member == "" && !r.JSON && r.OKMember == "" &&
		r.DeadStatus == 0 && r.DeadMember == "" && r.Dead == nil
}

func (r recipe) check() error {
	member := regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_]{0,63})?$`)
	switch {
	case !slices.Contains([]string{"", http.MethodPost, http.MethodDelete}, r.Method):
		return fmt.Errorf("revoke.method %q", r.Method)
	case !slices.Contains([]broker.AuthMethod{"", broker.AuthBasic, broker.AuthPost}, r.Client):
		return fmt.Errorf("revoke.client %q", r.Client)
	case !slices.Contains([]string{"", "access_token", "refresh_token"}, r.Token):
		return fmt.Errorf("revoke.token %q", r.Token)
	case r.Bearer && (r.Client != "" || r.Member != "" || r.JSON || r.Token != "access_token"):
		return errors.New("revoke.bearer: the token is access_token, and there is no client, member or body beside it")
	case !member.MatchString(r.Member) || !member.MatchString(r.OKMember):
		return fmt.Errorf("revoke: %q or %q names no member", r.Member, r.OKMember)
	case slices.Contains([]string{"client_id", "client_secret", "client_assertion", "client_assertion_type"}, r.Member):
		return fmt.Errorf("revoke.member %q is the client's", r.Member)
	case r.DeadStatus != 0 && !slices.Contains([]int{http.StatusBadRequest, http.StatusNotFound, http.StatusGone}, r.DeadStatus):
		return fmt.Errorf("revoke.deadStatus %d: only 400, 404 and 410 can say that a token is dead", r.DeadStatus)
	case !regexp.MustCompile(`^((/[A-Za-z0-9_.]{1,64}){1,3})?$`).MatchString(r.DeadMember):
		return fmt.Errorf("revoke.deadMember %q", r.DeadMember)
	case len(r.Dead) > 16:
		return errors.New("revoke.dead: at most 16")
	}
	for _, code := range r.Dead {
		if code == "" || !plain(code) {
			return fmt.Errorf("revoke.dead: %q", code)
		}
	}
	return nil
}
