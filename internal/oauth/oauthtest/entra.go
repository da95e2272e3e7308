package oauthtest

import (
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Microsoft is the name of the vendor whose tokens are each for one resource (Microsoft Entra).
const Microsoft = "MicrosoftOauth2"

// graph is the resource of a scope that names none.
const graph = "https://graph.microsoft.com"

// entra is what Microsoft Entra knows of its one user. Its refresh tokens serve every resource that the user consented
// to, each refresh brings another, and the old ones go on.
type entra struct {
	consented map[string][]string // names of scopes by resource
	claims    map[string]string   // what a resource asks for before it gets a token
	audience  map[string]string   // resource of each access token
}

func newEntra() *entra {
	return &entra{consented: map[string][]string{}, claims: map[string]string{}, audience: map[string]string{}}
}

// Consent is an administrator who consents for everybody, or a consent that was given before.
func (s *Server) Consent(scopes string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resource, names, _ := resourceOf(scopes)
	s.entra.consented[resource] = append(s.entra.consented[resource], names...)
}

// Challenge makes the resource refuse tokens until an authorization request brings the claims.
func (s *Server) Challenge(resource, claims string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entra.claims[resource] = claims
}

// Audience returns the resource that an access token is for.
func (s *Server) Audience(token string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entra.audience[token]
}

// resourceOf returns the one resource of the scopes and their names.
func resourceOf(scopes string) (resource string, names []string, err error) {
	for _, scope := range strings.Fields(scopes) {
		if slices.Contains([]string{"openid", "profile", "email", "offline_access"}, scope) {
			continue
		}
		of, name := graph, scope
		if i := strings.LastIndex(scope, "/"); i >= 0 {
			of, name = scope[:i], scope[i+1:]
		}
		if resource != "" && resource != of {
			return "", nil, errors.New("AADSTS28000: the scopes are of more than one resource")
		}
		resource, names = of, append(names, name)
	}
	if slices.Contains(names, ".default") && len(names) > 1 {
		return "", nil, errors.New("AADSTS70011: .default is combined with scopes of the resource")
	}
	if resource == "" {
		resource = graph
	}
	return resource, names, nil
}

// authorize is the user's consent to an authorization request.
func (e *entra) authorize(q url.Values) error {
	resource, names, err := resourceOf(q.Get("scope"))
	if err != nil {
		return err
	}
	if e.claims[resource] != "" && e.claims[resource] == q.Get("claims") {
		delete(e.claims, resource)
	}
	e.consented[resource] = append(e.consented[resource], names...)
	return nil
}

// refuse answers a refresh that cannot be served, with status 0 if it can.
func (e *entra) refuse(form url.Values) (int, map[string]any) {
	resource, names, err := resourceOf(form.Get("scope"))
	if err != nil {
		return http.StatusBadRequest, map[string]any{"error": "invalid_scope", "error_description": err.Error()}
	}
	if claims := e.claims[resource]; claims != "" {
		return http.StatusBadRequest, map[string]any{"error": "interaction_required", "suberror": "basic_action", "claims": claims,
			"error_description": "AADSTS50076: multi-factor authentication is required"}
	}
	had := e.consented[resource]
	for _, name := range names {
		if !slices.Contains(had, name) && (name != ".default" || len(had) == 0) {
			return http.StatusBadRequest, map[string]any{"error": "invalid_grant", "suberror": "consent_required", "error_codes": []int{65001},
				"error_description": "AADSTS65001: the user has not consented"}
		}
	}
	return 0, nil
}

// granted fills in the answer to a grant with the scopes, of a family of refresh tokens.
func (s *Server) granted(members map[string]any, scopes string, family int) {
	e := s.entra
	resource, names, _ := resourceOf(scopes)
	e.audience[members["access_token"].(string)] = resource
	told := []string{}
	for _, scope := range strings.Fields(scopes) {
		if strings.HasSuffix(scope, "/.default") {
			for _, name := range e.consented[resource] {
				if name != ".default" {
					told = append(told, resource+"/"+name)
				}
			}
		}
		if slices.Contains(names, scope[strings.LastIndex(scope, "/")+1:]) {
			told = append(told, scope)
		}
	}
	members["scope"] = strings.Join(told, " ")
	delete(members, "refresh_token")
	if family != 0 && slices.Contains(strings.Fields(scopes), "offline_access") {
		token := "rt-" + rand.Text()
		s.families[token] = family
		members["refresh_token"] = token
	}
}

// entraTokenLocked is tokenLocked as Entra answers.
func (s *Server) entraTokenLocked(r *http.Request) (status int, members map[string]any, asked url.Values) {
	form := r.PostForm
	family := s.families[form.Get("refresh_token")]
	if family != 0 && !s.revoked[family] {
		if status, members := s.entra.refuse(form); status != 0 {
			return status, members, nil
		}
	}
	status, members, asked = s.tokenLocked(r)
	if status != http.StatusOK {
		return status, members, asked
	}
	scopes := form.Get("scope")
	if form.Get("grant_type") == "authorization_code" {
		scopes, family = asked.Get("scope"), s.next
	}
	s.granted(members, scopes, family)
	return status, members, asked
}
