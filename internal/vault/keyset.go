package vault

import (
	"bytes"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/xaesgcm"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/key"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	"github.com/tink-crypto/tink-go/v2/prf/hmacprf"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// purposeRecords is the one keyset of an account's vault.
const purposeRecords = "records"

// kind is what the keys of a keyset must be.
type kind int

const (
	sealing kind = iota // XAES-256-GCM, 24-byte nonce, Tink's prefix
	naming              // HMAC-SHA-256 as a pseudorandom function
)

// purposes returns the keysets that a vault has from its creation.
func (id vaultID) purposes() map[string]kind {
	if id.account == Server {
		return map[string]kind{
			string(RingTokens):     sealing,
			string(RingAccessKeys): sealing,
			string(RingUserRefs):   naming,
			string(RingSigning):    sealing,
			string(RingSessions):   sealing,
		}
	}
	return map[string]kind{purposeRecords: sealing}
}

// added reports whether vaults were made before they had this keyset, so that one without it lacks nothing. What is
// sealed under such a keyset lies in tables that came with it, or lives an hour: where a keyset is lost and not merely
// new, its values do not open under the one that replaces it, and that is told.
func (id vaultID) added(purpose string) bool {
	return id.account == Server && (purpose == string(RingSigning) || purpose == string(RingSessions))
}

// keysetData is the associated data of a sealed keyset.
func (id vaultID) keysetData(purpose string) []byte {
	return encodeFields(string(id.account), id.name, purpose)
}

// template is how a key of this kind is generated.
func (k kind) template() *tinkpb.KeyTemplate {
	if k == naming {
		return prf.HMACSHA256PRFKeyTemplate()
	}
	return aead.XAES256GCM192BitNonceKeyTemplate()
}

// accepts reports whether a key is of this kind. Tink itself would take any key of the same primitive: one without a
// prefix, or of a cipher whose nonce repeats after 2³² messages.
func (k kind) accepts(have key.Key) bool {
	switch p := have.Parameters().(type) {
	case *xaesgcm.Parameters:
		return k == sealing && p.Variant() == xaesgcm.VariantTink && p.SaltSizeInBytes() == 12
	case *hmacprf.Parameters:
		return k == naming && p.HashType() == hmacprf.SHA256 && p.KeySizeInBytes() == 32
	}
	return false
}

// newKeysets makes the keysets of a vault and seals them by its key.
func newKeysets(vaultKey []byte, id vaultID) (map[string][]byte, error) {
	sealed := make(map[string][]byte)
	for purpose := range id.purposes() {
		var err error
		if sealed[purpose], err = newKeyset(vaultKey, id, purpose); err != nil {
			return nil, err
		}
	}
	return sealed, nil
}

func newKeyset(vaultKey []byte, id vaultID, purpose string) ([]byte, error) {
	sealer, err := vaultAEAD(vaultKey)
	if err != nil {
		return nil, err
	}
	h, err := keyset.NewHandle(id.purposes()[purpose].template())
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "keyset %q cannot be made", purpose)
	}
	var b bytes.Buffer
	if err := h.WriteWithAssociatedData(keyset.NewBinaryWriter(&b), sealer, id.keysetData(purpose)); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "keyset %q cannot be sealed", purpose)
	}
	return b.Bytes(), nil
}

// openKeysets opens the keysets of a vault. One that is missing is damage: making it anew would hide that every value
// under it is lost; what complete adds is there by then. One of an unknown purpose is left alone: a newer version made
// it.
func openKeysets(vaultKey []byte, id vaultID, sealed map[string][]byte) (*keys, error) {
	opener, err := vaultAEAD(vaultKey)
	if err != nil {
		return nil, err
	}
	k := &keys{aeads: make(map[string]tink.AEAD), prfs: make(map[string]*prf.Set)}
	for purpose, kind := range id.purposes() {
		h, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(sealed[purpose])), opener, id.keysetData(purpose))
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err,
				"keyset %q of the vault of account %s does not open: it is missing, was changed or moved", purpose, id.account)
		}
		if err := kind.check(h); err != nil {
			return nil, err
		}
		if kind == naming {
			k.prfs[purpose], err = prf.NewPRFSet(h)
		} else {
			k.aeads[purpose], err = aead.New(h)
		}
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err, "keyset %q cannot be used", purpose)
		}
	}
	return k, nil
}

// check refuses a keyset that holds a key of another kind.
func (k kind) check(h *keyset.Handle) error {
	for i := range h.Len() {
		e, err := h.Entry(i)
		if err != nil {
			return fault.Wrap(fault.Internal, err, "a keyset cannot be read")
		}
		if !k.accepts(e.Key()) {
			return fault.New(fault.Internal, "key %d of a keyset is of another kind than its purpose allows", e.KeyID())
		}
	}
	return nil
}

// vaultAEAD makes the AEAD that seals keysets from the raw key of a vault: XAES-256-GCM without a prefix.
func vaultAEAD(vaultKey []byte) (tink.AEAD, error) {
	params, err := xaesgcm.NewParameters(xaesgcm.VariantNoPrefix, 12)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the key of a vault cannot be used")
	}
	// NewKey refuses a key that is not 32 bytes long.
	raw, err := xaesgcm.NewKey(secretdata.NewBytesFromData(vaultKey, insecuresecretdataaccess.Token{}), 0, params)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the key service gave something that is no key of a vault")
	}
	m := keyset.NewManager()
	id, err := m.AddKey(raw)
	if err == nil {
		err = m.SetPrimary(id)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the key of a vault cannot be used")
	}
	h, err := m.Handle()
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the key of a vault cannot be used")
	}
	a, err := aead.New(h)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the key of a vault cannot be used")
	}
	return a, nil
}
