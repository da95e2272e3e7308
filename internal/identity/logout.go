package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/keyring"
	"github.com/tabard-id/tabard/internal/secret"
)

// Bounds of back-channel logout (OpenID Connect Back-Channel Logout 1.0).
const (
	logoutEvent = "http://schemas.openid.net/event/backchannel-logout"
	logoutToken = "the logout token" // what sentences call it
	maxLogoutID = 255                // bytes of the claims jti and sid

	// maxLogoutLife is how long a logout token may be valid: as long as it is remembered. Two minutes are advised (OpenID
	// Connect Back-Channel Logout 1.0 §2.4).
	maxLogoutLife = time.Hour

	// logoutKept is how long a logout is remembered: whatever it ends has ended by itself then.
	logoutKept = maxTokenLife + 5*time.Minute

	// logoutsAtOnce bounds the logout tokens of an issuer that wait for its keys at a time, and logoutWait how long
	// another one waits for its turn. They are not counted by time: anybody may send some, and the issuer's own must not
	// be the one that is turned away.
	logoutsAtOnce = 4
	logoutWait    = 5 * time.Second
)

// Logout is what an issuer's logout token ends.
type Logout struct {
	Account access.Account
	Token   string    // stands for the token, which is taken once
	Until   time.Time // when the token has ended
	Keys    []string  // what is over: of a session, of the user's tokens that name none, of all the user's tokens
	UserRef string    // the user whose epoch is raised, "" where only a session ended
	Issued  time.Time // of the logout token, by the issuer's clock
	At      time.Time // now
	Expires time.Time // when it may be forgotten
}

// LoggedOut is what is remembered of a key. The zero value says that nothing of it was ended.
type LoggedOut struct {
	Epoch  int64     // rises with each logout; what was made under a lower one is dead
	Issued time.Time // users' tokens that were issued then or before are refused
}

// LogoutStore keeps logouts.
type LogoutStore interface {
	// AddLogout stores l and raises the user's epoch, in one step. It returns Conflict where the token was taken before.
	AddLogout(ctx context.Context, l Logout) error
	// LoggedOut is recent, and costs no query while the account has no logout. CurrentlyLoggedOut is never from a cache.
	LoggedOut(ctx context.Context, account access.Account, key string) (LoggedOut, error)
	CurrentlyLoggedOut(ctx context.Context, account access.Account, key string) (LoggedOut, error)
	// SweepLogouts deletes at most limit logouts and as many tokens that expired at t or before, and returns how many.
	SweepLogouts(ctx context.Context, t time.Time, limit int) (int, error)
}

// BackchannelID is the name of the issuer in the address that it sends logout tokens to. It is the same whenever the
// issuer is trusted in the account, and no secret.
func BackchannelID(account access.Account, issuer string) string {
	sum := sha256.Sum256(appendField(appendField(appendField(nil, "tabard back-channel 1"), string(account)), issuer))
	return hex.EncodeToString(sum[:16])
}

// BackchannelPath is where issuers send logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.2): under the account,
// at the id of the issuer.
const BackchannelPath = "/accounts/{account}/backchannel-logout/{issuer}"

// BackchannelURI is the address that an issuer of the account sends its logout tokens to.
func (s *Service) BackchannelURI(account access.Account, issuer string) string {
	return s.issuer + strings.NewReplacer("{account}", string(account), "{issuer}", BackchannelID(account, issuer)).Replace(BackchannelPath)
}

// signIn is a sign-in at an issuer with back-channel logout. The zero value is none.
type signIn struct {
	key   string // of the logouts that end it
	epoch int64  // of the key, when the token was made
}

// proof is what a user's token says of the sign-in that it is of.
type proof struct {
	key, all string // of the session, or of those that name none, and of all the user's tokens
	issued   time.Time
}

// BackchannelLogout takes a logout token that was sent to the address of the issuer with the id: it ends the session
// that it names, or the user's tokens altogether where it names none. Workload access tokens of it are dead here at
// once and within two seconds elsewhere, and users' tokens that were issued until then are refused. What a user
// delegated ends with the user, and not with one session. It has no caller: the issuer's signature is all that counts.
//
// Errors: Unauthenticated or Invalid for a token that is not taken; Throttled where too many are being worked on;
// Unavailable where the issuer's keys, the store or the trail cannot be had.
func (s *Service) BackchannelLogout(ctx context.Context, account access.Account, id string, token secret.Text) error {
	t, err := jws.ParseLogout(logoutToken, token)
	if err != nil {
		return err
	}
	iss, _ := t.Claims.String("iss")
	if iss == "" || len(iss) > maxIssuerURL || BackchannelID(account, iss) != id {
		return badLogout("is not of the issuer that this address is for")
	}
	i, err := s.trusted(ctx, account, iss)
	if errors.Is(err, fault.Unauthenticated) || err == nil && !i.BackchannelLogout {
		return badLogout("is not of the issuer that this address is for") // as above: nobody learns who is trusted
	}
	if err != nil {
		return err
	}
	if at, err := s.store.Standing(ctx, account, IssuerStanding, iss); err != nil {
		return err
	} else if at.Down() {
		return badLogout("is of an issuer that is disabled here")
	}
	if err := s.verifyLogout(ctx, account, i.Issuer, t); err != nil {
		return err
	}
	c, err := i.logoutClaims(t.Claims, s.now())
	if err != nil {
		return err
	}
	return s.logOut(ctx, account, i.Issuer, c)
}

// verifyLogout checks the signature of a logout token. One that needs no more than what is in memory is answered at
// once. For others the issuer may be asked, which takes as long as it takes: few of each issuer's wait for that at a
// time, so that a stranger who makes up key ids holds up no token whose key is known, and none of another issuer
// (threat A35).
func (s *Service) verifyLogout(ctx context.Context, account access.Account, i Issuer, t jws.Token) error {
	if len(i.JWKS) > 0 {
		return s.verifySignature(ctx, account, i, t)
	}
	if settled, err := s.keys.VerifyHeld(keyring.Issuer{Account: account, URL: i.URL, JWKSURI: i.JWKSURI}, t.Verify); settled {
		return err
	}
	leave, err := s.logouts.enter(ctx, BackchannelID(account, i.URL))
	if err != nil {
		return err
	}
	defer leave()
	return s.verifySignature(ctx, account, i, t)
}

// logOut ends what the token of the claims names.
func (s *Service) logOut(ctx context.Context, account access.Account, i Issuer, c logoutClaims) error {
	l := Logout{Account: account, Until: c.expires.Add(clockSkew), Issued: c.issued, At: s.now(), Expires: s.now().Add(logoutKept)}
	user := User{Kind: JWTUser, Issuer: i.URL, Subject: c.subject}
	facts := access.Facts{Resource: clip(i.URL), Outcome: "session_ended"}
	var names [][2]string
	if c.session != "" {
		names = append(names, [2]string{"sid", c.session})
	}
	if c.subject != "" {
		var err error
		if facts.UserRef, err = s.UserRef(ctx, account, user); err != nil {
			return err
		}
		names = append(names, [2]string{"sub", c.subject}) // tokens that name no session may be of this one
	}
	if c.session == "" {
		l.UserRef, facts.Outcome = facts.UserRef, "user_ended"
		names = append(names, [2]string{"all", c.subject})
	}
	for _, n := range names {
		key, err := s.logoutKey(ctx, account, i.URL, n[0], n[1])
		if err != nil {
			return err
		}
		l.Keys = append(l.Keys, key)
	}
	var err error
	if l.Token, err = s.logoutKey(ctx, account, i.URL, "jti", c.id); err != nil {
		return err
	}
	err = s.store.AddLogout(ctx, l)
	if errors.Is(err, fault.Conflict) {
		return badLogout("was taken already: each has a jti of its own")
	}
	if err != nil {
		return err
	}
	return s.guard.Event(ctx, access.Caller{Account: account}, access.BackchannelLogout, facts).Wait(ctx)
}

// logoutKey stands for a name that an issuer gave: pseudorandom under a key of the server, so that the table of logouts
// says nothing of who logged out.
func (s *Service) logoutKey(ctx context.Context, account access.Account, issuer, kind, name string) (string, error) {
	data := appendField(nil, "tabard logout 1")
	for _, f := range []string{string(account), issuer, kind, name} {
		data = appendField(data, f)
	}
	key, err := s.vault.UserRef(ctx, data)
	return hex.EncodeToString(key), err
}

func badLogout(format string, args ...any) *fault.Error {
	return fault.New(fault.Unauthenticated, logoutToken+" "+format, args...)
}

// logoutClaims are those of a logout token that count.
type logoutClaims struct {
	subject, session, id string
	issued, expires      time.Time
}

// logoutClaims checks the claims of a logout token whose signature was verified (OpenID
// Connect Back-Channel Logout 1.0 §2.4, §2.6).
func (i trust) logoutClaims(c jws.Claims, now time.Time) (logoutClaims, error) {
	var l logoutClaims
	aud, err := c.Strings("aud")
	if err != nil {
		return l, err
	}
	if !i.anyAudience && !overlap(aud, i.ClientIDs) && !overlap(aud, i.Audiences) {
		return l, badLogout("is for another client than its issuer is trusted for")
	}
	if l.issued, err = c.Time("iat"); err != nil {
		return l, err
	}
	if l.expires, err = c.Time("exp"); err != nil {
		return l, err
	}
	switch {
	case l.issued.IsZero() || l.expires.IsZero():
		return l, badLogout("lacks the claim iat or exp")
	case l.issued.After(now.Add(clockSkew)):
		return l, badLogout("was issued in the future, at %s", l.issued.UTC().Format(time.RFC3339))
	case !now.Before(l.expires.Add(clockSkew)):
		return l, badLogout("expired at %s", l.expires.UTC().Format(time.RFC3339))
	case l.expires.Sub(l.issued) > maxLogoutLife:
		return l, badLogout("is valid for more than an hour, which is too long")
	case c.Has("nonce"):
		return l, badLogout("has a nonce, which only ID tokens have")
	}
	if events, ok := c.Object("events"); !ok || !events.Has(logoutEvent) {
		return l, badLogout("has no claim events with the event of a back-channel logout")
	} else if _, ok := events.Object(logoutEvent); !ok {
		return l, badLogout("has an event of a back-channel logout that is no object")
	}
	var ok bool
	if l.id, ok = c.String("jti"); !ok || l.id == "" || len(l.id) > maxLogoutID {
		return l, badLogout("has no jti of 1 to %d bytes", maxLogoutID)
	}
	if c.Has("sub") {
		if l.subject, err = subject(c, defaultSubject); err != nil {
			return l, badLogout("has a claim sub that names no user")
		}
	}
	if l.session, err = sessionOf(c); err != nil {
		return l, badLogout("has a claim sid that names no session")
	}
	if l.subject == "" && l.session == "" {
		return l, badLogout("names neither a user (sub) nor a session (sid)")
	}
	return l, nil
}

// sessionOf is the claim sid, "" where there is none.
func sessionOf(c jws.Claims) (string, error) {
	if !c.Has("sid") {
		return "", nil
	}
	sid, ok := c.String("sid")
	if !ok || !validSubject(sid, maxLogoutID) {
		return "", badToken("has a claim sid that is no string of 1 to %d characters", maxLogoutID)
	}
	return sid, nil
}

func overlap(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}

// examine checks the claims of a user's token whose signature was verified, and that its sign-in was not ended.
func (s *Service) examine(ctx context.Context, account access.Account, i trust, t jws.Token) (VerifiedUser, error) {
	u, err := i.accept(t, s.now())
	if err != nil || !i.BackchannelLogout {
		return u, err
	}
	issued, err := t.Claims.Time("iat")
	if err != nil {
		return VerifiedUser{}, err
	}
	if issued.IsZero() {
		return VerifiedUser{}, badToken("does not say when it was issued (iat), so that no logout could end it")
	}
	kind, name := "sub", u.Subject
	if sid, err := sessionOf(t.Claims); err != nil {
		return VerifiedUser{}, err
	} else if sid != "" {
		kind, name = "sid", sid
	}
	u.proof = proof{issued: issued}
	if u.proof.key, err = s.logoutKey(ctx, account, i.URL, kind, name); err != nil {
		return VerifiedUser{}, err
	}
	if u.proof.all, err = s.logoutKey(ctx, account, i.URL, "all", u.Subject); err != nil {
		return VerifiedUser{}, err
	}
	_, err = s.signedIn(ctx, account, u.proof)
	if err != nil {
		return VerifiedUser{}, err
	}
	return u, nil
}

// signedIn returns the sign-in of p as it is now, or an Unauthenticated fault where it was ended after the user's token
// was issued, or in the same second.
func (s *Service) signedIn(ctx context.Context, account access.Account, p proof) (signIn, error) {
	if p.key == "" {
		return signIn{}, nil
	}
	in := signIn{key: p.key}
	for _, key := range []string{p.key, p.all} {
		at, err := s.store.CurrentlyLoggedOut(ctx, account, key)
		if err != nil {
			return signIn{}, err
		}
		if at.Epoch > 0 && !p.issued.After(at.Issued) {
			return signIn{}, badToken("is of a session that its issuer has ended: the user has to sign in again")
		}
		if key == p.key {
			in.epoch = at.Epoch
		}
	}
	return in, nil
}

// ended reports whether the sign-in was ended since. It may be a second late.
func (s *Service) ended(ctx context.Context, account access.Account, in signIn) (bool, error) {
	if in.key == "" {
		return false, nil
	}
	at, err := s.store.LoggedOut(ctx, account, in.key)
	return at.Epoch > in.epoch, err
}

// SweepLogouts forgets logouts that nothing rests on any more, and returns how many rows it deleted.
func (s *Service) SweepLogouts(ctx context.Context) (int, error) {
	const batch = 1000 // as SweepAssertions
	for total := 0; ; {
		n, err := s.store.SweepLogouts(ctx, s.now(), batch)
		total += n
		if err != nil || n < batch {
			return total, err
		}
	}
}
