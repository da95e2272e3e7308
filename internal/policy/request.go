package policy

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/tabard-id/tabard/internal/access"
)

// request is one question in Cedar's words. It is also the getter of its entities, which it makes when they are asked
// for: most policies ask for few.
type request struct {
	caller  access.Caller
	action  access.Action
	facts   access.Facts
	at      time.Time
	actsFor bool
	actions types.EntityMap

	principal, act, resource types.EntityUID

	whoMade, userMade bool
	who, user         types.Entity
	claims            error // the claims cannot be read
}

func (l *language) request(c access.Caller, a access.Action, f access.Facts, at time.Time) *request {
	r := &request{caller: c, action: a, facts: f, at: at, actsFor: access.ActsFor(c, a, f), actions: l.actions}
	op := l.operation[a]
	r.act = op.uid
	r.principal = types.EntityUID{Type: typePrincipal, ID: types.String(c.Name)}
	r.resource = r.acted(op)
	return r
}

// acted returns what is acted on. Administration acts on the provider or else the workload identity that the facts
// name.
func (r *request) acted(op operation) types.EntityUID {
	id := ""
	kind := op.resource
	if kind == "" {
		switch {
		case r.facts.Provider != "" && ofAPIKeys(r.action):
			kind = typeAPIProvider
		case r.facts.Provider != "":
			kind = typeProvider
		case r.facts.Workload != "":
			kind = typeWorkload
		default:
			kind = typeAccount
		}
	}
	switch kind {
	case typeProvider, typeAPIProvider:
		id = r.facts.Provider
	case typeWorkload:
		id = r.facts.Workload
	case typeAudience:
		id = r.facts.Audience
	case typeAccount:
		id = string(r.caller.Account)
	}
	return types.EntityUID{Type: kind, ID: types.String(id)}
}

// ofAPIKeys reports whether the operation is about an API-key provider: a name may be of one of each kind (threat M03).
func ofAPIKeys(a access.Action) bool {
	switch a {
	case access.CreateAPIKeyCredentialProvider, access.GetAPIKeyCredentialProvider, access.UpdateAPIKeyCredentialProvider,
		access.DeleteAPIKeyCredentialProvider, access.GetResourceAPIKey:
		return true
	}
	return false
}

func (r *request) vaultName() string {
	if r.facts.Vault == "" {
		return "default"
	}
	return r.facts.Vault
}

func (r *request) vault() types.EntityUID {
	return types.EntityUID{Type: typeVault, ID: types.String(r.vaultName())}
}

// cedar returns the request with as much of the context as is read.
func (r *request) cedar(reads attributes, scopes []string) cedar.Request {
	q := cedar.Request{Principal: r.principal, Action: r.act, Resource: r.resource}
	if reads == 0 {
		return q
	}
	m := make(types.RecordMap, 4)
	if reads&readsScopes != 0 && !r.facts.ScopesUnknown { // without it, whatever reads it fails
		m["scopes"] = stringSet(scopes)
	}
	if reads&^readsScopes != 0 {
		r.rest(m, reads)
	}
	q.Context = types.NewRecord(m)
	return q
}

// rest adds what is read of the context beside the scopes.
func (r *request) rest(m types.RecordMap, reads attributes) {
	for one := readsWorkload; one <= readsFrom; one <<= 1 {
		switch one & reads {
		case readsWorkload:
			m["workload"] = types.String(r.facts.Workload)
		case readsProvider:
			m["provider"] = types.String(r.facts.Provider)
		case readsVault:
			m["vault"] = types.String(r.vaultName())
		case readsUser:
			m["user"] = r.userUID()
		case readsFlow:
			m["flow"] = types.String(r.facts.Flow)
		case readsAudience:
			m["audience"] = types.String(r.facts.Audience)
		case readsAssertable:
			m["assertable"] = types.Boolean(r.facts.Assertable)
		case readsTime:
			m["time"] = types.NewDatetime(r.at)
		case readsParameters:
			m["parameters"] = stringSet(r.facts.Parameters)
		case readsThrough:
			m["through"] = stringSet(r.facts.Through)
		case readsFrom:
			m["from"] = types.String(r.facts.From)
		}
	}
}

func stringSet(texts []string) types.Set {
	values := make([]types.Value, len(texts))
	for i, t := range texts {
		values[i] = types.String(t)
	}
	return types.NewSet(values...)
}

func (r *request) userUID() types.EntityUID {
	return types.EntityUID{Type: typeUser, ID: types.String(r.facts.UserRef)}
}

// Get returns an entity of the request, for Cedar.
func (r *request) Get(uid types.EntityUID) (types.Entity, bool) {
	switch uid.Type {
	case typePrincipal:
		if uid == r.principal {
			return r.principalEntity(), true
		}
	case typeAction:
		e, ok := r.actions[uid]
		return e, ok
	case typeProvider, typeAPIProvider:
		if uid == r.resource {
			return types.Entity{UID: uid, Parents: types.NewEntityUIDSet(r.vault())}, true
		}
	case typeUser:
		if uid == r.userUID() {
			return r.userEntity(), true
		}
	}
	return types.Entity{}, false
}

// principalEntity is the caller: in its roles, and in the workload identity that it acts for. Those that its token came
// through are not among its parents (threat B10).
func (r *request) principalEntity() types.Entity {
	if r.whoMade {
		return r.who
	}
	var room [4]types.EntityUID
	parents := room[:0]
	for _, role := range r.caller.Roles {
		parents = append(parents, types.EntityUID{Type: typeRole, ID: types.String(role)})
	}
	if r.actsFor {
		parents = append(parents, types.EntityUID{Type: typeWorkload, ID: types.String(r.facts.Workload)})
	}
	r.who, r.whoMade = types.Entity{UID: r.principal, Parents: types.NewEntityUIDSet(parents...)}, true
	return r.who
}

func (r *request) userEntity() types.Entity {
	if r.userMade {
		return r.user
	}
	kind := types.String("none")
	switch {
	case r.facts.Asserted:
		kind = "asserted"
	case r.facts.User.Issuer != "" || r.facts.UserRef != "":
		kind = "verified"
	}
	tags, err := claimTags(r.facts.User.Claims)
	r.claims = err
	r.user, r.userMade = types.Entity{UID: r.userUID(), Tags: tags, Attributes: types.NewRecord(types.RecordMap{
		"kind": kind, "issuer": types.String(r.facts.User.Issuer), "subject": types.String(r.facts.User.Subject),
	})}, true
	return r.user
}

// claimTags makes each claim a set of strings: of one text, number or truth value, or of those in a list. Anything else
// in a claim is left out.
func claimTags(text string) (types.Record, error) {
	if text == "" {
		return types.Record{}, nil
	}
	var claims map[string]any
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	if err := d.Decode(&claims); err != nil {
		return types.Record{}, err
	}
	tags := make(types.RecordMap, len(claims))
	for name, claim := range claims {
		list, ok := claim.([]any)
		if !ok {
			list = []any{claim}
		}
		var values []types.Value
		for _, v := range list {
			switch v := v.(type) {
			case string:
				values = append(values, types.String(v))
			case json.Number:
				values = append(values, types.String(v.String()))
			case bool:
				values = append(values, types.String(map[bool]string{true: "true", false: "false"}[v]))
			}
		}
		if values != nil || ok {
			tags[types.String(name)] = types.NewSet(values...)
		}
	}
	return types.NewRecord(tags), nil
}
