package awsapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/awsapi"
	"github.com/tabard-id/tabard/internal/fault"
)

func TestDecode(t *testing.T) {
	body := ` {"workloadIdentityToken" : "wat1.\u0041\"\\\/\b\f\n\r\t\ud83d\ude00é", "resourceCredentialProviderName":null,
		"scopes":["a","b","c","d"],"oauth2Flow":"M2M","forceAuthentication":true,"customParameters":{"k":"v","l":""},"resources":[]} `
	got, err := awsapi.Decode[api.GetResourceOauth2TokenRequest]([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	want := &api.GetResourceOauth2TokenRequest{WorkloadIdentityToken: "wat1.A\"\\/\b\f\n\r\t😀é", Scopes: []string{"a", "b", "c", "d"}, Oauth2Flow: api.Oauth2FlowTypeM2M,
		ForceAuthentication: true, CustomParameters: map[string]api.Sensitive{"k": "v", "l": ""}, Resources: []string{}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, want %#v", got, want)
	}
}

func TestDecodeTellsAbsentFromEmpty(t *testing.T) {
	for body, want := range map[string][]string{`{"name":"abc"}`: nil, `{"name":"abc","allowedResourceOauth2ReturnUrls":null}`: nil, `{"name":"abc","allowedResourceOauth2ReturnUrls":[]}`: {}} {
		got, err := awsapi.Decode[api.UpdateWorkloadIdentityRequest]([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.AllowedResourceOauth2ReturnURLs, want) {
			t.Errorf("%s: got %#v, want %#v", body, got.AllowedResourceOauth2ReturnURLs, want)
		}
	}
	if _, err := awsapi.Decode[api.ListWorkloadIdentitiesRequest](nil); err != nil {
		t.Errorf("empty body: %v", err)
	}
}

func TestF09_StrictJSON(t *testing.T) {
	const parse, field = "CannotParse", "FieldValidationFailed"
	nested := func(inner string) string {
		return `{"name":"p","oauth2ProviderConfigInput":{"customOauth2ProviderConfig":{` + inner + `}}}`
	}
	for body, want := range map[string]string{ // "reason field: what the message contains"
		`{"name":"a","name":"b"}`:               parse + " name: occurs twice",
		`{"name":"a","n\u0061me":"b"}`:          parse + " name: occurs twice",
		`{"Name":"a"}`:                          field + " Name: case-sensitive",
		`{"nonsense":1}`:                        field + " nonsense: not a known member",
		`{"<script>":1}`:                        field + " ?: not a known member",
		`{"name":1}`:                            parse + " name: must be a string",
		`{"tags":{"a":"x","a":"y"}}`:            parse + " tags[a]: occurs twice",
		`{"tags":{"a":null}}`:                   parse + " tags[a]: must be a string",
		`{"tags":[]}`:                           parse + " tags: must be an object",
		`{"name":"a"} x`:                        parse + " : the end of the body",
		`{"name":"a"}{}`:                        parse + " : the end of the body",
		`{"name":"a",}`:                         parse + " : a member's name",
		`{"name":"a"`:                           parse + " : ',' or '}'",
		`{"name" "a"}`:                          parse + " : ':'",
		`{"name":"a` + "\n" + `"}`:              parse + " name: no control character",
		`{"name":"a`:                            parse + " name: the end of a string",
		`{"name":"\x"}`:                         parse + " name: an escape",
		`{"name":"\ud800"}`:                     parse + " name: an escape",
		`{"name":"\udc00\ud800"}`:               parse + " name: an escape",
		`{"name":"\u0000"}`:                     parse + " name: U+0000",
		`{"name":"` + "\xff" + `"}`:             parse + " : UTF-8",
		"\xef\xbb\xbf{}":                        parse + " : must be an object",
		`null`:                                  parse + " : must be an object",
		`[]`:                                    parse + " : must be an object",
		`NaN`:                                   parse + " : must be an object",
		nested(`"privateEndpointOverrides":{}`): parse + " oauth2ProviderConfigInput.customOauth2ProviderConfig.privateEndpointOverrides: must be a list",
		nested(`"clientId":"a","clientId":"a"`): parse + " oauth2ProviderConfigInput.customOauth2ProviderConfig.clientId: occurs twice",
		nested(`"privateEndpointOverrides":[{},null]`):  parse + " oauth2ProviderConfigInput.customOauth2ProviderConfig.privateEndpointOverrides[1]: must be an object",
		nested(`"oauthDiscovery":{"discoveryUrl":""}`):  field + " oauth2ProviderConfigInput.customOauth2ProviderConfig.oauthDiscovery.discoveryUrl: must not be empty",
		nested(`"oauthDiscovery":{"discoveryURL":"x"}`): field + " oauth2ProviderConfigInput.customOauth2ProviderConfig.oauthDiscovery.discoveryURL: not a known member",
		strings.Repeat(`{"tags":`, 100_000):             parse + " tags[tags]: must be a string",
	} {
		_, err := awsapi.Decode[api.CreateOauth2CredentialProviderRequest]([]byte(body))
		checkInvalid(t, body, err, want)
	}
	for body, want := range map[string]string{
		`{"maxResults":1.5}`: parse + " maxResults: must be an integer", `{"maxResults":1e3}`: parse + " maxResults: must be an integer",
		`{"maxResults":"1"}`: parse + " maxResults: must be an integer", `{"maxResults":01}`: parse + " maxResults: must be an integer",
		`{"maxResults":-}`: parse + " maxResults: must be an integer", `{"maxResults":99999999999999999999}`: parse + " maxResults: must be an integer",
		`{"maxResults":0}`: field + " maxResults: must not be empty or zero", `{"maxResults":NaN}`: parse + " maxResults: must be an integer",
	} {
		_, err := awsapi.Decode[api.ListWorkloadIdentitiesRequest]([]byte(body))
		checkInvalid(t, body, err, want)
	}
}

func checkInvalid(t *testing.T, body string, err error, want string) {
	t.Helper()
	if fault.CodeOf(err) != fault.Invalid {
		t.Errorf("%.80s: got %v, want an invalid error", body, err)
		return
	}
	reasonAndField, contains, _ := strings.Cut(want, ": ")
	public := fault.Public(err)
	if got := awsapi.ReasonOf(err) + " " + public.Field; got != reasonAndField || !strings.Contains(public.Msg, contains) {
		t.Errorf("%.80s: got %s: %s, want %s", body, got, public.Msg, want)
	}
}

// FuzzDecode: what the decoder accepts, encoding/json reads alike; and no input makes it panic.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{}`, tokenBody(t600), `{"scopes":["\u00e9\ud83d\ude00"],"customParameters":{"a":"b"}}`, `{"forceAuthentication":false,"scopes":[]}`, `{"name":"a"}x`, `{"scopes":[,]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) == 0 {
			return
		}
		got, err := awsapi.Decode[api.GetResourceOauth2TokenRequest](body)
		if err != nil {
			return
		}
		var want api.GetResourceOauth2TokenRequest
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&want); err != nil {
			t.Fatalf("accepts what encoding/json refuses: %v: %q", err, body)
		}
		if !reflect.DeepEqual(got, &want) {
			t.Errorf("reads %q differently than encoding/json", body)
		}
	})
}

const t600 = 500

func tokenBody(watLength int) string {
	return fmt.Sprintf(`{"workloadIdentityToken":"%s","resourceCredentialProviderName":"google-calendar","scopes":["https://www.googleapis.com/auth/calendar.events"],"oauth2Flow":"USER_FEDERATION","resourceOauth2ReturnUrl":"http://localhost:8081/oauth2/callback"}`, strings.Repeat("w", watLength))
}

func BenchmarkDecode(b *testing.B) {
	body := []byte(tokenBody(400))
	decode := awsapi.Decoder[api.GetResourceOauth2TokenRequest]()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(body); err != nil {
			b.Fatal(err)
		}
	}
}

// endless counts what is read of it.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) { e.read += len(p); return len(p), nil }

func TestF01_BodyIsBounded(t *testing.T) {
	for name, length := range map[string]int64{"announced": 1 << 30, "chunked": -1} {
		source := &endless{}
		r := httptest.NewRequest("POST", "/", io.NopCloser(source))
		r.ContentLength = length
		_, err := awsapi.ReadBody(httptest.NewRecorder(), r, awsapi.MaxBody)
		if fault.CodeOf(err) != fault.TooLarge {
			t.Errorf("%s: got %v, want too_large", name, err)
		}
		if source.read > 2*awsapi.MaxBody || length > 0 && source.read > 0 {
			t.Errorf("%s: read %d bytes", name, source.read)
		}
	}
	r := httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", awsapi.MaxBody)))
	if b, err := awsapi.ReadBody(httptest.NewRecorder(), r, awsapi.MaxBody); err != nil || len(b) != awsapi.MaxBody {
		t.Errorf("a body of the bound: got %d bytes, %v", len(b), err)
	}
	r = httptest.NewRequest("POST", "/", strings.NewReader("short"))
	r.ContentLength = 10
	if _, err := awsapi.ReadBody(httptest.NewRecorder(), r, awsapi.MaxBody); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("a body cut short: got %v, want invalid", err)
	}
}
