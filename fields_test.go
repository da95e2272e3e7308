package tabard_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/tabard-id/tabard"
)

type creds struct {
	Calendar *http.Client       `tabard:"google,scopes=events settings,hosts=127.0.0.1,param.login_hint=a"`
	Mail     *tabard.Token      `tabard:"microsoft, scopes=Mail.Read, flow=obo"`
	Drive    oauth2.TokenSource `tabard:"google,scopes=drive,return=https://app/x"`
	Weather  tabard.APIKey      `tabard:"weather,apikey"`
	Skipped  string             `tabard:"-"`
	Other    int
}

func TestFill(t *testing.T) {
	f := newFake()
	c := f.client(t)
	ctx := tabard.WithUserToken(t.Context(), "a.b.c")
	got := creds{Other: 7}
	if err := c.Fill(ctx, &got); err != nil {
		t.Fatal(err)
	}
	if got.Mail.AccessToken != "provider-2" || got.Weather.Value() != "key-canary" || got.Other != 7 || got.Skipped != "" {
		t.Errorf("got mail %q, weather %q, other %d", got.Mail.AccessToken, got.Weather.Value(), got.Other)
	}
	if tok, err := got.Drive.Token(); err != nil || tok.AccessToken != "provider-3" {
		t.Errorf("drive: %v", err)
	}
	calls := f.seen(opToken)
	if len(calls) != 3 || calls[0]["customParameters"].(object)["login_hint"] != "a" || len(calls[0]["scopes"].([]any)) != 2 ||
		calls[1]["oauth2Flow"] != "ON_BEHALF_OF_TOKEN_EXCHANGE" || calls[2]["resourceOauth2ReturnUrl"] != "https://app/x" {
		t.Errorf("calls %v", calls)
	}
	// The client holds the token that Fill got; its host is refused here because the port differs.
	if _, err := got.Calendar.Get("http://127.0.0.1:1/"); !errors.Is(err, tabard.ErrInvalid) {
		t.Errorf("hosts of the tag: %v, want ErrInvalid", err)
	}
}

func TestFillIsAllOrNothing(t *testing.T) {
	f := newFake()
	f.on(opToken, func(_ int, in object) (int, object) {
		if in["resourceCredentialProviderName"] == "microsoft" {
			return pending()
		}
		return granted("x")
	})
	var got creds
	err := f.client(t).Fill(tabard.WithUserToken(t.Context(), "a.b.c"), &got)
	e, ok := errors.AsType[*tabard.ConsentRequiredError](err)
	if !ok || e.Provider != "microsoft" || !strings.HasPrefix(err.Error(), "creds.Mail: ") {
		t.Errorf("got %v, want microsoft's consent", err)
	}
	if got.Calendar != nil {
		t.Error("half filled")
	}
}

func TestTagErrors(t *testing.T) {
	for _, tc := range []struct {
		need interface{ Validate() error }
		want string
	}{
		{tabard.Fields[struct {
			A *http.Client `tabard:"google,scope=x"`
		}]{}, `.A: unknown option "scope": the options are scopes, flow,`},
		{tabard.Fields[struct {
			A *http.Client `tabard:""`
		}]{}, ".A: a declaration needs the name of a credential provider"},
		{tabard.Fields[struct {
			A *http.Client `tabard:"goo gle"`
		}]{}, `provider "goo gle" must be`},
		{tabard.Fields[struct {
			A *tabard.Token `tabard:"google,flow=3lo"`
		}]{}, `flow "3lo" must be user, m2m or obo`},
		{tabard.Fields[struct {
			A *tabard.Token `tabard:"google,scopes=a,scopes=b"`
		}]{}, `option "scopes" is given twice`},
		{tabard.Fields[struct {
			A *tabard.Token `tabard:"google,scopes="`
		}]{}, `option "scopes" needs a value`},
		{tabard.Fields[struct {
			A *tabard.Token `tabard:"google,apikey"`
		}]{}, "option apikey needs a field of type tabard.APIKey"},
		{tabard.Fields[struct {
			A tabard.APIKey `tabard:"weather,scopes=x"`
		}]{}, `option "scopes" has no meaning for an API key`},
		{tabard.Fields[struct {
			A string `tabard:"google"`
		}]{}, "a field of type string cannot be filled"},
		{tabard.Fields[struct {
			a *tabard.Token `tabard:"google"`
		}]{}, ".a has a tabard tag but is not exported"},
		{tabard.Fields[struct{ A int }]{}, "has no field with a tabard tag"},
		{tabard.Fields[int]{}, "filled into a struct, not into int"},
		{tabard.OAuth2{Provider: "g", Scopes: []string{"a b"}}, `scope "a b" must be`},
		{tabard.OAuth2{Provider: "g", Flow: "3LO"}, `Flow "3LO" must be`},
		{tabard.OAuth2{Provider: "g", Resources: []string{""}}, "Resources and Audiences"},
		{tabard.OAuth2{Provider: "g", CustomParameters: map[string]string{"a b": "c"}}, `custom parameter "a b"`},
		{tabard.OAuth2{Provider: "g", ReturnURL: "/x"}, `ReturnURL "/x" must be`},
		{tabard.OAuth2{Provider: "g", Hosts: []string{"h/x"}}, `host "h/x" must be`},
		{tabard.KeyFrom("a/b"), `provider "a/b" must be`},
	} {
		err := tc.need.Validate()
		if !errors.Is(err, tabard.ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%T: got %v, want %q", tc.need, err, tc.want)
		}
	}
	if err := (tabard.Fields[creds]{}).Validate(); err != nil {
		t.Errorf("good tags: %v", err)
	}
	c := newFake().direct(t)
	for _, dst := range []any{nil, creds{}, (*creds)(nil), new(int)} {
		if err := c.Fill(t.Context(), dst); !errors.Is(err, tabard.ErrInvalid) {
			t.Errorf("Fill(%T): %v, want ErrInvalid", dst, err)
		}
	}
}

func TestTool(t *testing.T) {
	f := newFake()
	c := f.client(t)
	ctx := tabard.WithUserToken(t.Context(), "a.b.c")
	book := tabard.Tool(c, calendarNeed(), func(_ context.Context, tok *tabard.Token, what string) (string, error) {
		return what + " with " + tok.AccessToken, nil
	})
	if out, err := book(ctx, "lunch"); err != nil || out != "lunch with provider-1" {
		t.Errorf("got %q, %v", out, err)
	}
	forecast := tabard.Tool(c, tabard.KeyFrom("weather"), func(_ context.Context, key tabard.APIKey, days int) (int, error) {
		return days + len(key.Value()), nil
	})
	if out, err := forecast(ctx, 3); err != nil || out != 13 {
		t.Errorf("got %d, %v", out, err)
	}
	called := false
	all := tabard.Tool(c, tabard.Fields[creds]{}, func(_ context.Context, cr creds, _ struct{}) (bool, error) {
		called = true
		return cr.Calendar != nil && cr.Mail != nil, nil
	})
	if ok, err := all(ctx, struct{}{}); err != nil || !ok {
		t.Errorf("got %v, %v", ok, err)
	}
	called = false
	f.on(opToken, func(int, object) (int, object) { return pending() })
	if _, err := all(ctx, struct{}{}); !errors.Is(err, tabard.ErrConsentRequired) || called {
		t.Errorf("without consent: %v, called %v", err, called)
	}
}
