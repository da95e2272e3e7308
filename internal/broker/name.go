package broker

import (
	"strconv"

	"github.com/tabard-id/tabard/internal/access"
)

// connectionName is everything that decides which token a stored one is (threat M05): a name has one connection.
type connectionName struct {
	account              access.Account
	workload, user       string // uid and reference; the latter "" for none
	provider, flow       string // uid of the provider
	resources, audiences []string
	resource             string   // that the scopes name, at a vendor with Resources
	parameters           string   // MAC of the custom parameters that decide which token comes; "" for none
	scopes               []string // exactly these; not for USER_FEDERATION
}

// key names the one connection that a request can be served from.
func (n connectionName) key() string { return n.digest("connection-1", n.resource) }

// family is the key without the resource: connections of one family may live on one refresh token.
func (n connectionName) family() string { return n.digest("family-1", "") }

func (n connectionName) digest(purpose, resource string) string {
	parts := []string{purpose, string(n.account), n.workload, n.user, n.provider, n.flow, resource}
	list := func(name string, in []string) {
		in = sorted(in)
		parts = append(parts, name, strconv.Itoa(len(in))) // the count tells where one list ends and the next begins
		parts = append(parts, in...)
	}
	list("resources", n.resources)
	list("audiences", n.audiences)
	if n.flow != FlowUserFederation {
		list("scopes", n.scopes)
	}
	if n.parameters != "" {
		parts = append(parts, "parameters", n.parameters)
	}
	return digest(parts...)
}

// name is what the request asks for, for the user with the reference, or "".
func (g grounds) name(r Request, flow, user string) connectionName {
	return connectionName{
		account: g.caller.Account, workload: g.workload.UID, user: user, provider: g.provider.UID, flow: flow,
		resources: r.Resources, audiences: r.Audiences, resource: r.resource, parameters: r.parameters, scopes: r.Scopes,
	}
}

// name is what the flow asks for.
func (f Flow) name() connectionName {
	return connectionName{
		account: f.Account, workload: f.Workload, user: f.User, provider: f.Provider, flow: FlowUserFederation,
		resources: f.Resources, audiences: f.Audiences, resource: f.Resource, parameters: f.Parameters,
	}
}

// name of a connection of USER_FEDERATION.
func (c Connection) name() connectionName {
	return connectionName{
		account: c.Account, workload: c.Workload, user: c.User, provider: c.Provider, flow: c.Flow,
		resources: c.Resources, audiences: c.Audiences, resource: c.Resource, parameters: c.Parameters,
	}
}
