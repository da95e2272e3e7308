package identity

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// The text of a workload access token is "wat1." and, in base64url without padding, a value sealed under the server's
// ring "workload-access-tokens" with tokenContext as associated data. The plaintext is, integers big endian:
//
//	1   version: 0x01, or 0x02, 0x03 or 0x04 where the fields at the end follow
//	16  random id
//	8   issued, milliseconds since 1970
//	8   expires, milliseconds since 1970
//	8   generation of the workload identity
//	2+n uid of the workload identity, behind its length
//	    user:
//	1   kind and how it was established: 0 none, 1 proven by a token of an issuer, 2 asserted by the caller
//	2+n issuer, behind its length; empty unless the kind is 1
//	2+n subject, behind its length; empty where the kind is 0
//	    in versions 0x02 to 0x04 only:
//	8   when the user logged in, milliseconds since 1970; 0 where that is not known
//	2+n handle of the row that keeps the user's token, behind its length; empty where it is not kept
//	2+n share that opens that row: 32 bytes, or empty with the handle, behind its length
//	    in versions 0x03 and 0x04 only:
//	8   epoch of the workload identity
//	8   epoch of the user; 0 without one
//	8   epoch of the user's issuer; 0 without one
//	2+n id of the delegation that it was minted under, behind its length; empty where there is none
//	1   number of actors, at most 8: the workload identities it came through, the latest first
//	2+n uid of each, behind its length
//	2+n claims of the user that policies may ask for, a JSON object of at most 2048 bytes, behind its length; empty
//	    where there are none
//	    in version 0x04 only:
//	2+n key of the sign-in that the user's token is of, 64 hexadecimal digits, behind its length
//	8   epoch of that key
//
// and nothing after it. A reader refuses any other version.
const (
	tokenFormat         = 0x01
	tokenFormatRetained = 0x02
	tokenFormatStanding = 0x03
	tokenFormatSignIn   = 0x04
)

// Bounds of the fields of version 0x03. maxActors is the depth of delegation of RFC 8693 §4.1 that is accepted (threat
// B09).
const (
	maxActors      = 8
	maxTokenClaims = 2048
)

// userFormat is the first byte of the sealed row of a user; the user follows as above.
const userFormat = 0x01

type tokenBody struct {
	id         [16]byte
	issued     time.Time
	expires    time.Time
	generation int64
	workload   string
	user       User

	authenticated time.Time // zero where it is not known
	retained      *retained // nil where the user's token is not kept

	epochs     epochs   // of what the token rests on, when it was minted
	delegation string   // id of the delegation it was minted under
	actors     []string // uids of the workload identities it came through, the latest first
	claims     string   // JSON object of the user's claims that policies may ask for

	session signIn // of an issuer with back-channel logout
	proof   proof  // where session comes from; not encoded
}

// epochs are counters that rise when all tokens of before shall end. 0 where nothing was ever revoked.
type epochs struct{ workload, user, issuer int64 }

// standing reports whether b has fields that only version 0x03 holds.
func (b tokenBody) standing() bool {
	return b.epochs != epochs{} || b.delegation != "" || len(b.actors) > 0 || b.claims != ""
}

// lineage is what Token says of where it came from.
func (b tokenBody) lineage() *lineage {
	if b.delegation == "" && len(b.actors) == 0 {
		return nil
	}
	return &lineage{delegation: b.delegation, actors: b.actors}
}

func (b tokenBody) encode() []byte {
	version := byte(tokenFormat)
	if !b.authenticated.IsZero() || b.retained != nil {
		version = tokenFormatRetained
	}
	switch {
	case b.session.key != "":
		version = tokenFormatSignIn
	case b.standing():
		version = tokenFormatStanding
	}
	out := append([]byte{version}, b.id[:]...)
	for _, n := range []int64{b.issued.UnixMilli(), b.expires.UnixMilli(), b.generation} {
		out = binary.BigEndian.AppendUint64(out, uint64(n))
	}
	out = appendUser(appendShort(out, b.workload), b.user)
	if version == tokenFormat {
		return out
	}
	var at uint64
	if !b.authenticated.IsZero() {
		at = uint64(b.authenticated.UnixMilli())
	}
	out = binary.BigEndian.AppendUint64(out, at)
	if b.retained == nil {
		out = appendShort(appendShort(out, ""), "")
	} else {
		out = appendShort(appendShort(out, b.retained.handle), b.retained.share.Expose())
	}
	if version == tokenFormatRetained {
		return out
	}
	for _, n := range []int64{b.epochs.workload, b.epochs.user, b.epochs.issuer} {
		out = binary.BigEndian.AppendUint64(out, uint64(n))
	}
	out = append(appendShort(out, b.delegation), byte(len(b.actors)))
	for _, uid := range b.actors {
		out = appendShort(out, uid)
	}
	out = appendShort(out, b.claims)
	if version == tokenFormatStanding {
		return out
	}
	return binary.BigEndian.AppendUint64(appendShort(out, b.session.key), uint64(b.session.epoch))
}

func appendUser(b []byte, u User) []byte {
	switch u.Kind {
	case JWTUser:
		return appendShort(appendShort(append(b, 1), u.Issuer), u.Subject)
	case UIDUser:
		return appendShort(appendShort(append(b, 2), ""), u.Subject)
	}
	return appendShort(appendShort(append(b, 0), ""), "")
}

// appendShort appends s behind its length. Every s here is bounded far below 64 KiB when it comes in.
func appendShort(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

var errBody = errors.New("identity: the body of the token does not decode")

// decodeTokenBody reads what encode wrote. What does not decode was sealed by another version of this server.
func decodeTokenBody(p []byte) (tokenBody, error) {
	var b tokenBody
	r := bodyReader{rest: p}
	version := r.take(1)
	copy(b.id[:], r.take(len(b.id)))
	b.issued, b.expires, b.generation = time.UnixMilli(r.number()), time.UnixMilli(r.number()), r.number()
	b.workload = r.text()
	kind, issuer, subject := r.take(1), r.text(), r.text()
	known := version[0] >= tokenFormat && version[0] <= tokenFormatSignIn
	if version[0] >= tokenFormatRetained {
		if at := r.number(); at != 0 {
			b.authenticated = time.UnixMilli(at)
		}
		handle, share := r.text(), secret.New(r.text())
		if known = known && (handle == "") == share.IsZero(); handle != "" {
			b.retained = &retained{handle: handle, share: share}
		}
	}
	if version[0] >= tokenFormatStanding {
		known = b.decodeStanding(&r) && known
		if version[0] == tokenFormatStanding {
			known = known && b.standing()
		} else {
			b.session = signIn{key: r.text(), epoch: r.number()}
			known = known && b.session.key != ""
		}
	}
	if r.short || len(r.rest) != 0 || !known {
		return tokenBody{}, fault.Wrap(fault.Unauthenticated, errBody, "the workload access token is of another version of this server")
	}
	switch {
	case kind[0] == 0 && issuer == "" && subject == "":
	case kind[0] == 1 && issuer != "" && subject != "":
		b.user = User{Kind: JWTUser, Issuer: issuer, Subject: subject}
	case kind[0] == 2 && issuer == "" && subject != "":
		b.user = User{Kind: UIDUser, Subject: subject}
	default:
		return tokenBody{}, fault.Wrap(fault.Unauthenticated, errBody, "the workload access token is of another version of this server")
	}
	return b, nil
}

// decodeStanding reads the fields of version 0x03, which 0x04 has too.
func (b *tokenBody) decodeStanding(r *bodyReader) (known bool) {
	b.epochs = epochs{workload: r.number(), user: r.number(), issuer: r.number()}
	b.delegation = r.text()
	n := int(r.take(1)[0])
	if n > maxActors {
		return false
	}
	for range n {
		b.actors = append(b.actors, r.text())
	}
	b.claims = r.text()
	return len(b.claims) <= maxTokenClaims
}

// bodyReader cuts fields off; after one that is too short everything it returns is zero.
type bodyReader struct {
	rest  []byte
	short bool
}

func (r *bodyReader) take(n int) []byte {
	if r.short || len(r.rest) < n {
		r.short = true
		return make([]byte, n)
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *bodyReader) number() int64 { return int64(binary.BigEndian.Uint64(r.take(8))) }

func (r *bodyReader) text() string {
	return string(r.take(int(binary.BigEndian.Uint16(r.take(2)))))
}
