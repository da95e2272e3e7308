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
//	1   version: 0x01, or 0x02 where the fields at the end follow
//	16  random id
//	8   issued, milliseconds since 1970
//	8   expires, milliseconds since 1970
//	8   generation of the workload identity
//	2+n uid of the workload identity, behind its length
//	    user:
//	1   kind and how it was established: 0 none, 1 proven by a token of an issuer, 2 asserted by the caller
//	2+n issuer, behind its length; empty unless the kind is 1
//	2+n subject, behind its length; empty where the kind is 0
//	    in version 0x02 only:
//	8   when the user logged in, milliseconds since 1970; 0 where that is not known
//	2+n handle of the row that keeps the user's token, behind its length; empty where it is not kept
//	2+n share that opens that row: 32 bytes, or empty with the handle, behind its length
//
// and nothing after it. A reader refuses any other version.
const (
	tokenFormat         = 0x01
	tokenFormatRetained = 0x02
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
}

func (b tokenBody) encode() []byte {
	version := byte(tokenFormat)
	if !b.authenticated.IsZero() || b.retained != nil {
		version = tokenFormatRetained
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
		return appendShort(appendShort(out, ""), "")
	}
	return appendShort(appendShort(out, b.retained.handle), b.retained.share.Expose())
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
	known := version[0] == tokenFormat || version[0] == tokenFormatRetained
	if version[0] == tokenFormatRetained {
		if at := r.number(); at != 0 {
			b.authenticated = time.UnixMilli(at)
		}
		handle, share := r.text(), secret.New(r.text())
		if known = (handle == "") == share.IsZero(); handle != "" {
			b.retained = &retained{handle: handle, share: share}
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
